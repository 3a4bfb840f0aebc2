/**
 * ONNX Runtime on the linear layers of a model (bench/_ort_layers.ts), run by Node for `bench engine --peer`. Arguments:
 * model file, threads, and as JSON the widths of its inputs and outputs.
 */
import { serveCommands } from "./lines.mjs";

const [path, threads, widths] = process.argv.slice(2);
const { inputs, outputs, hiddenSize, vocabSize } = JSON.parse(widths);

await serveCommands(async () => {
  const { default: ort } = await import("onnxruntime-node");
  /** Neither zeros nor of one sign, so that no path for special values is taken. */
  const filled = (rows, width) =>
    new ort.Tensor("float32", Float32Array.from({ length: rows * width }, (_, i) => Math.sin(i)), [rows, width]);
  const empty = (rows, width) => new ort.Tensor("float32", new Float32Array(rows * width), [rows, width]);
  const session = await ort.InferenceSession.create(path, {
    intraOpNumThreads: Number(threads),
    interOpNumThreads: 1,
    graphOptimizationLevel: "all",
  });
  /** Milliseconds of `times` runs over `rows` tokens. Outputs are given, or each run would allocate them. */
  const run = async (times, rows, headRows) => {
    const feeds = { head: filled(headRows, hiddenSize) };
    for (const width of inputs) feeds[`x${width}`] = filled(rows, width);
    const fetches = { logits: empty(headRows, vocabSize) };
    for (const width of outputs) fetches[`y${width}`] = empty(rows, width);
    const start = performance.now();
    for (let i = 0; i < times; i++) await session.run(feeds, fetches);
    return performance.now() - start;
  };
  await run(1, 1, 1);
  return {
    prefill: async (tokens) => tokens * 1000 / await run(1, tokens, 1),
    decode: async (tokens) => tokens * 1000 / await run(tokens, 1, 1),
    streams: async (count, tokens) => count * tokens * 1000 / await run(tokens, count, count),
  };
});
