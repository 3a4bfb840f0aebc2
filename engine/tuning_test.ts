import assert from "node:assert/strict";
import { join } from "node:path";
import type { Measure } from "../kernels/tune.ts";
import type { TensorEntry } from "../models/formats/artifact_header.ts";
import { chooseKernels, type KernelsChosen } from "./tuning.ts";

const tensors = [
  { format: { kind: "windows", windows: 6, bits: 8, blockChunks: 2 }, bytes: 100 },
  { format: { kind: "q8" }, bytes: 10 },
  { format: { kind: "vector" }, bytes: 1000 },
] as unknown as TensorEntry[];
const I32 = { decode: "i32", batched: "i32" };

/** Prefers `i32`, and counts. */
function tuner(file?: string) {
  const heard: KernelsChosen["from"][] = [];
  let measured = 0;
  const measure: Measure = (modules) => {
    measured++;
    return Promise.resolve(modules.map(({ variant }) => variant === "i32" ? 1 : 2));
  };
  const options = { file, measure, onChoice: ({ from }: KernelsChosen) => void heard.push(from) };
  return { heard, options, measured: () => measured };
}
async function inFolder(run: (file: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await run(join(folder, "tuning.json"));
    assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name), ["tuning.json"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("chooseKernels() measures once and reads its file from then on", () =>
  inFolder(async (file) => {
    const { heard, options, measured } = tuner(file);
    const first = await chooseKernels(tensors, options);
    assert.deepEqual(first, { w6q8: I32, q8: I32 });
    assert.deepEqual(await chooseKernels(tensors, options), first);
    assert.deepEqual(heard, ["measured", "cache"]);
    assert.equal(measured(), 4);
  }));

Deno.test("chooseKernels() measures anew what a broken or foreign file says, and replaces it", () =>
  inFolder(async (file) => {
    await chooseKernels(tensors, tuner(file).options);
    const good = await Deno.readTextFile(file);
    const spoiled = [
      "",
      "{",
      good.slice(0, 40),
      JSON.stringify({ ...JSON.parse(good), machine: "another" }),
      JSON.stringify({ ...JSON.parse(good), version: 2 }),
      good.replaceAll(/"kernels": "./g, '"kernels": "x'),
    ];
    for (const text of spoiled) {
      await Deno.writeTextFile(file, text);
      const { heard, options } = tuner(file);
      assert.deepEqual(await chooseKernels(tensors, options), { w6q8: I32, q8: I32 });
      assert.deepEqual(heard, ["measured"]);
      assert.equal(await Deno.readTextFile(file), good);
    }
  }));

Deno.test("chooseKernels() without autotune measures nothing and leaves the file alone", () =>
  inFolder(async (file) => {
    await Deno.writeTextFile(file, "untouched");
    const { heard, options, measured } = tuner(file);
    assert.deepEqual(await chooseKernels(tensors, { ...options, autotune: false }), {});
    assert.deepEqual([heard, measured()], [["fixed"], 0]);
    assert.equal(await Deno.readTextFile(file), "untouched");
  }));
