import assert from "node:assert/strict";
import { TILE_SIZES } from "./abi.ts";
import { bindKernels, createMemory, ENCODINGS, loadKernelModules, probeEncoding } from "./load.ts";
import { kernelName, kernelNames, LINEAR_MODULES, MODULES } from "./manifest.ts";

Deno.test("probeEncoding() finds one of the known encodings", async () => {
  assert.ok((Object.values(ENCODINGS) as unknown[]).includes(await probeEncoding()));
});

Deno.test("createMemory() is shared, rounds up to pages and refuses more than 4 GiB", () => {
  const memory = createMemory(65537);
  assert.equal(Object.prototype.toString.call(memory.buffer), "[object SharedArrayBuffer]");
  assert.equal(memory.buffer.byteLength, 2 * 65536);
  assert.throws(() => createMemory(2 ** 32 + 1), RangeError);
});

Deno.test("bindKernels() finds the loaded kernels and names what is missing", async () => {
  const modules = await loadKernelModules(["base", "w6q8"]);
  const kernels = bindKernels(modules, createMemory(1));
  for (const size of TILE_SIZES) {
    assert.equal(typeof kernels.linear("w6q8", size), "function");
    assert.equal(typeof kernels.base.quantize[size], "function");
    assert.equal(typeof kernels.base.interleave[size], "function");
  }
  assert.throws(() => kernels.linear("q8", 1), /"q8"/);
  assert.throws(() => bindKernels(new Map(), createMemory(1)), /"base"/);
});

Deno.test("modules can be sent to workers", async () => {
  const modules = await loadKernelModules(["f32"]);
  assert.ok(structuredClone(modules).get("f32") instanceof WebAssembly.Module);
});

Deno.test("every module's sidecar lists its kernels and how it was made", async () => {
  for (const entry of MODULES) {
    const text = await Deno.readTextFile(new URL(`./gen/${entry.file}.json`, import.meta.url));
    assert.match(text, /^\{"note": "Auto-generated file. Do not edit!",\n/);
    const sidecar = JSON.parse(text);
    assert.deepEqual(sidecar.kernels, kernelNames(entry));
    assert.match(sidecar.sourceSha256, /^[0-9a-f]{64}$/);
  }
});

Deno.test("kernelName() says activation, weight, operation, step, batch, instructions and accumulation", () => {
  const named = (name: string) => LINEAR_MODULES.find((module) => module.name === name)!;
  assert.equal(kernelName(named("w6q8"), 1), "q8_w6q8_mv_4x64b1__relaxed_i16");
  assert.equal(kernelName(named("f32"), 8), "f32_f32_mv_4x1b8__relaxed_f32");
});
