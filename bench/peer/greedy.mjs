/**
 * llama.cpp's greedy continuations, by node-llama-cpp, run by Node for the tests of export. Argument: as JSON a list of
 * `{path, texts, prompts: [[ids]], tokens}`; prints for each `{tokenized: [[ids]], continuations: [[ids]]}`.
 */
const jobs = JSON.parse(process.argv[2]);
const { getLlama, LlamaLogLevel } = await import("node-llama-cpp");
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: 1 });
// Keys and values in f32, as on Oatmill's exact path.
const cache = { experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32" };

async function answer({ path, texts, prompts, tokens }) {
  const model = await llama.loadModel({ modelPath: path, gpuLayers: 0 });
  const context = await model.createContext({ contextSize: 256, threads: 1, ...cache });
  const sequence = context.getSequence();
  const continuations = [];
  for (const prompt of prompts) {
    await sequence.clearHistory();
    const made = [];
    for await (const token of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
      made.push(token);
      if (made.length === tokens) break;
    }
    continuations.push(made);
  }
  return { tokenized: texts.map((text) => model.tokenize(text, false)), continuations };
}

const answers = [];
for (const job of jobs) answers.push(await answer(job));
process.stdout.write(JSON.stringify(answers) + "\n");
process.exit();
