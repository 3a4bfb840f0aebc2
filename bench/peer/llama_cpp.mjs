/**
 * The llama.cpp side of `bench engine --peer`, run by Node: reads "prefill N" and "decode N" lines, answers each with one
 * JSON line. Arguments: model file, threads.
 */
import { createInterface } from "node:readline";
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

const [path, threads] = process.argv.slice(2);
const answer = (value) => process.stdout.write(JSON.stringify(value) + "\n");
/** As bench/engine.ts: what a decode starts from. */
const DECODE_PROMPT = 8;
let seed = 1;
const prompt = (length, vocabSize) =>
  Array.from({ length }, () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return 3 + seed % (vocabSize - 3);
  });

try {
  const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.disabled, maxThreads: Number(threads) });
  const model = await llama.loadModel({ modelPath: path, gpuLayers: 0 });
  const context = await model.createContext({ contextSize: 2048, batchSize: 512, threads: { ideal: Number(threads), min: Number(threads) } });
  const sequence = context.getSequence();
  const vocabSize = model.fileInfo.metadata.tokenizer.ggml.tokens.length;
  answer({ ready: true });

  const commands = {
    async prefill(tokens) {
      await sequence.clearHistory();
      const start = performance.now();
      await sequence.evaluateWithoutGeneratingNewTokens(prompt(tokens, vocabSize));
      return tokens * 1000 / (performance.now() - start);
    },
    async decode(tokens) {
      await sequence.clearHistory();
      let produced = 0, first = 0, last = 0;
      for await (const _ of sequence.evaluate(prompt(DECODE_PROMPT, vocabSize), { temperature: 0, yieldEogToken: true })) {
        last = performance.now();
        if (produced++ === 0) first = last;
        if (produced === tokens) break;
      }
      return (produced - 1) * 1000 / (last - first);
    },
  };
  for await (const line of createInterface({ input: process.stdin })) {
    const [command, tokens] = line.split(" ");
    answer({ tokensPerSecond: await commands[command](Number(tokens)) });
  }
  process.exit(0);
} catch (error) {
  answer({ error: String(error?.message ?? error) });
  process.exit(1);
}
