/** What leaves as an adapter is the change, whatever a family's files hold together. */
import assert from "node:assert/strict";
import { join } from "node:path";
import fc from "fast-check";
import { mergeAdapter } from "../compress/merge_adapter.ts";
import { openArtifact } from "../models/formats/artifact.ts";
import { readAdapter } from "../models/peft/read_adapter.ts";
import type { WeightRole } from "../models/checkpoint.ts";
import { writePeftFolder } from "../models/testing/peft_folder.ts";
import { oracleTest, shared } from "../models/testing/shared.ts";
import { openDenseModel } from "./dense_model.ts";
import { exportModel } from "./export.ts";
import { differenceOf } from "./peft.ts";
import { inFolder, writeArtifactOf } from "./testing/sparse_low_rank.ts";

/** Row i, column j of U V. */
const product = (U: Float32Array, V: Float32Array, rank: number, i: number, j: number): number => {
  let sum = 0;
  for (let k = 0; k < rank; k++) sum += U[i * rank + k] * V[k * (V.length / rank) + j];
  return sum;
};

Deno.test("differenceOf() is U' V' - U V, without ranks that stayed", () => {
  const values = (count: number) =>
    fc.array(fc.integer({ min: -4, max: 4 }), { minLength: count, maxLength: count });
  const factors = (rows: number, cols: number) =>
    fc.integer({ min: 1, max: 4 }).chain((rank) =>
      fc.tuple(values(rows * rank), values(rank * cols)).map(([u, v]) => ({
        u: new Float32Array(u),
        v: new Float32Array(v),
        rank,
      }))
    );
  const [rows, cols] = [3, 2], maybe = fc.option(factors(rows, cols), { nil: null });
  fc.assert(fc.property(maybe, maybe, (after, before) => {
    const { U, V } = differenceOf(after, before, [rows, cols]);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < cols; j++) {
        const a = after ? product(after.u, after.v, after.rank, i, j) : 0;
        const b = before ? product(before.u, before.v, before.rank, i, j) : 0;
        assert.equal(product(U.data, V.data, U.cols, i, j), a - b);
      }
    }
    assert.equal(differenceOf(after, after, [rows, cols]).U.cols, 0);
  }));
});

for (const oracle of ["llama2", "phi3", "gpt2", "gpt_neox"]) {
  oracleTest(
    `an adapter that ${oracle} was merged with leaves it again`,
    `oracles/${oracle}`,
    () =>
      inFolder(async (folder) => {
        const [peft, merged, out] = ["peft", "merged", "out"].map((name) => join(folder, name));
        const base = await writeArtifactOf(shared(`oracles/${oracle}/`).pathname, folder);
        const artifact = await openArtifact(base), of = { spec: artifact.spec, name: oracle };
        await Deno.mkdir(peft);
        await writePeftFolder(peft, artifact.spec, { rank: 3, modules: ({ block }) => block === 0 });
        const adapter = await readAdapter(peft, of);
        await mergeAdapter(artifact, adapter, { out: merged, adapterName: "x" });
        const exported = await exportModel({ model: merged, to: "peft", out, base });
        assert.equal(exported.rest, 0);
        await assert.rejects(exportModel({ model: merged, to: "peft", out, base }), { code: "conflict" });
        const again = await readAdapter(out, of);
        assert.deepEqual([...again.layers.keys()].sort(), [...adapter.layers.keys()].sort());
        await using after = await openDenseModel(merged);
        await using before = await openDenseModel(base);
        for (const [layer, { A, B, rank }] of again.layers) {
          const W = (await after.weights.read(layer as WeightRole)).data;
          const W0 = (await before.weights.read(layer as WeightRole)).data, dIn = A.length / rank;
          const size = Math.sqrt(W.reduce((sum, w) => sum + w * w, 0) / W.length);
          const far = Math.max(
            ...W.map((w, at) => Math.abs(w - W0[at] - product(B, A, rank, Math.floor(at / dIn), at % dIn))),
          );
          assert.ok(far < 1e-5 * Math.max(1, size), `${layer} is ${far} off`);
        }
        if (oracle === "gpt2") {
          const { fan_in_fan_out } = JSON.parse(await Deno.readTextFile(join(out, "adapter_config.json")));
          assert.equal(fan_in_fan_out, true);
        }
      }),
  );
}

oracleTest(
  "an adapter of a given rank is the best of all that changed",
  "oracles/llama2",
  () =>
    inFolder(async (folder) => {
      const source = shared("oracles/llama2/").pathname, artifact = await writeArtifactOf(source, folder);
      const rests: number[] = [];
      for (const rank of [1, 1000]) { // from the dense model: S changed too
        const out = join(folder, `rank${rank}`);
        const exported = await exportModel({
          model: artifact,
          to: "peft",
          out,
          base: source,
          rank,
          type: "bf16",
        });
        rests.push(exported.rest!);
        const { spec } = await openArtifact(artifact);
        if (rank < 512) assert.equal((await readAdapter(out, { spec, name: "x" })).rank, rank);
      }
      assert.ok(rests[0] < 1 && rests[0] > 0.1 && rests[1] < 1e-3, String(rests));
      const options = { model: artifact, to: "peft", out: join(folder, "no") } as const;
      const cases = [
        [{ ...options, base: source }, /is no artifact.*--rank/],
        [{ ...options, base: artifact }, /are the same/],
        [{ ...options, base: shared("oracles/llama3/").pathname }, /different shape/],
        [options, /--base/],
        [{ ...options, to: "gguf", rank: 3 }, /only peft/],
      ] as const;
      for (const [input, message] of cases) {
        await assert.rejects(exportModel(input), { code: "invalid_request", message });
      }
      await assert.rejects(Deno.stat(options.out), Deno.errors.NotFound);
    }),
);
