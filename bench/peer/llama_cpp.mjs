/** llama.cpp by node-llama-cpp, run by Node for `bench engine --peer`. Arguments: model file, threads, context. */
import { serveCommands } from "./lines.mjs";
import { DECODE_PROMPT, prompt } from "./prompts.mjs";

const [path, threads, contextLength] = process.argv.slice(2);
const cores = { ideal: Number(threads), min: Number(threads) };
const GREEDY = { temperature: 0, yieldEogToken: true };

await serveCommands(async () => {
  const { getLlama, LlamaLogLevel } = await import("node-llama-cpp");
  const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.disabled, maxThreads: Number(threads) });
  const model = await llama.loadModel({ modelPath: path, gpuLayers: 0 });
  const vocabSize = model.fileInfo.metadata.tokenizer.ggml.tokens.length;
  const context = await model.createContext({ contextSize: Number(contextLength), batchSize: 512, threads: cores });
  const sequence = context.getSequence();
  /** Of the streams, by the first command that wants so many: one context, one batch a step for all sequences. */
  let parallel = { sequences: [] };

  const generate = async (from, tokens, onToken = () => {}) => {
    await from.clearHistory();
    let produced = 0;
    for await (const _ of from.evaluate(prompt(DECODE_PROMPT, vocabSize), GREEDY)) {
      onToken();
      if (++produced === tokens) break;
    }
  };
  return {
    async prefill(tokens) {
      await sequence.clearHistory();
      const start = performance.now();
      await sequence.evaluateWithoutGeneratingNewTokens(prompt(tokens, vocabSize));
      return tokens * 1000 / (performance.now() - start);
    },
    async decode(tokens) {
      const times = [];
      await generate(sequence, tokens, () => times.push(performance.now()));
      return (times.length - 1) * 1000 / (times.at(-1) - times[0]);
    },
    async streams(count, tokens) {
      if (parallel.sequences.length !== count) {
        await parallel.context?.dispose();
        const context = await model.createContext({
          sequences: count,
          contextSize: DECODE_PROMPT + tokens,
          batchSize: 512,
          threads: cores,
        });
        parallel = { context, sequences: Array.from({ length: count }, () => context.getSequence()) };
      }
      const start = performance.now();
      await Promise.all(parallel.sequences.map((s) => generate(s, tokens)));
      return count * tokens * 1000 / (performance.now() - start);
    },
  };
});
