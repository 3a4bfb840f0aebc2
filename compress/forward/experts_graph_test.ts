/** Experts in the calibration's graph, against blocks without them. Whole models: families_test.ts. */
import assert from "node:assert/strict";
import { type InputName, inputNames, type ModelSpec } from "../../models/spec.ts";
import { randomCheckpoint } from "../../models/testing/random_checkpoint.ts";
import { LinalgRuntime } from "../linalg/runtime.ts";
import { seededRandom } from "../random.ts";
import { blockStatistics, shared } from "../statistics.ts";
import { type BlockJob, runBlock } from "./block_job.ts";
import type { BlockSums } from "./block_sums.ts";
import { readBlock } from "./dense_forward.ts";

const DENSE: ModelSpec = {
  family: "test",
  architecture: "test",
  vocabSize: 8,
  hiddenSize: 24,
  blocks: 1,
  contextLength: 64,
  norm: { kind: "rmsnorm", eps: 1e-6 },
  attention: { heads: 3, kvHeads: 3, headDim: 8, causal: true, scale: 0.3, window: null, rope: null },
  mlp: { intermediateSize: 40, activation: "silu", gated: true },
  tiedEmbeddings: true,
  biases: [],
  bosId: null,
  eosIds: [],
};
const withExperts = (count: number, perToken: number): ModelSpec => ({
  ...DENSE,
  mlp: { ...DENSE.mlp, experts: { count, perToken } },
});

/** Weights of a block: with experts those of the first are the dense block's, the others' are their own. */
async function weightsOf(spec: ModelSpec): Promise<BlockJob["weights"]> {
  const weights: Record<string, BlockJob["weights"][string]> = {
    ...await readBlock(randomCheckpoint(spec), 0),
  };
  const dense = await readBlock(randomCheckpoint(DENSE), 0);
  for (const [name, weight] of Object.entries(dense)) {
    weights[name in weights ? name : `experts.0.${name}`] = weight;
  }
  return weights;
}

async function run(spec: ModelSpec, sequences: number, products: BlockJob["products"]) {
  const linalg = await LinalgRuntime.create();
  const length = 12, random = seededRandom(3), x = shared(sequences * length * spec.hiddenSize);
  for (let i = 0; i < x.length; i++) x[i] = random.normal();
  const job = { spec, weights: await weightsOf(spec), x, length, from: 0, to: sequences, collect: true };
  const momentSequences = Math.ceil(sequences / 2); // the others collect squares only
  const sums = await runBlock({ kind: "block", ...job, momentSequences, write: true, products }, linalg);
  await linalg.close();
  return { x, sums, tokens: sequences * length };
}

function assertClose(a: ArrayLike<number>, b: ArrayLike<number>, what: string): void {
  const size = Math.hypot(...Array.from(b)) || 1;
  const distance = Math.hypot(...Array.from(a, (v, i) => v - b[i])) / size;
  assert.ok(a.length === b.length && distance < 1e-5, `${what}: off by ${distance}`);
}

const addUp = (sums: BlockSums, part: "squares" | "moments", names: readonly InputName[]): number[] =>
  names.map((name) => Array.from<number>(sums[part][name]))
    .reduce((all, some) => all.map((v, i) => v + some[i]));

Deno.test("one expert is the MLP", async () => {
  const dense = await run(DENSE, 3, "f32"), one = await run(withExperts(1, 1), 3, "f32");
  assertClose(one.x, dense.x, "y");
  for (const kind of ["mlp", "down"] as const) {
    const name = `experts.0.${kind}` as const;
    assert.equal(one.sums.tokens[name], dense.sums.tokens[kind]);
    assert.equal(one.sums.momentTokens[name], dense.sums.momentTokens[kind]);
    assertClose(one.sums.squares[name], dense.sums.squares[kind], `${kind} squares`);
    assertClose(one.sums.moments[name], dense.sums.moments[kind], `${kind} moments`);
  }
});

for (const products of ["f32", "int8"] as const) {
  for (const [sequences, count, perToken] of [[1, 8, 1], [1, 16, 1], [5, 5, 2]]) {
    const what = `${perToken} of ${count} experts over ${sequences} sequences, ${products}`;
    Deno.test(`the rows of all experts are those of the block, as often as they chose: ${what}`, async () => {
      const spec = withExperts(count, perToken);
      const dense = await run(DENSE, sequences, "f32"),
        { sums, tokens } = await run(spec, sequences, products);
      const names = inputNames(spec).filter((name) => name.endsWith(".mlp"));
      const chosen = names.map((name) => sums.tokens[name]);
      assert.equal(names.length, count);
      assert.equal(chosen.reduce((a, b) => a + b), perToken * tokens);
      assert.ok(count < 16 || chosen.includes(0), `${chosen}`); // also with experts that none chose
      if (products === "f32") {
        for (const part of ["squares", "moments"] as const) {
          const all = addUp(dense.sums, part, ["mlp"]).map((v) => perToken * v);
          assertClose(addUp(sums, part, names), all, part);
        }
      }
      const statistics = blockStatistics([sums], { sink: true });
      for (const name of inputNames(spec)) {
        const { d, H } = statistics[name];
        assert.ok(d.every((v) => v > 0 && Number.isFinite(v)) && H!.every(Number.isFinite), name);
      }
    });
  }
}
