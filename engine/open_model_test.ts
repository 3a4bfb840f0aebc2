import assert from "node:assert/strict";
import { OatmillError } from "../errors.ts";
import { openArtifact, WEIGHTS_FILE } from "../models/formats/artifact.ts";
import { DEFAULT_MODEL, writeArtifact } from "../models/testing/artifact.ts";
import { openModel } from "./open_model.ts";
import { readJob, readPieces } from "./weights_reader.ts";

Deno.test("openModel() leaves no threads behind when the tokenizer cannot be loaded", async () => {
  const dir = await Deno.makeTempDir();
  for (const { name } of Deno.readDirSync(DEFAULT_MODEL)) {
    if (name !== "tokenizer.json") await Deno.symlink(`${DEFAULT_MODEL}${name}`, `${dir}/${name}`);
  }
  await Deno.writeTextFile(`${dir}/tokenizer.json`, '{"model": {"type": "BPE", "vocab": 1}}');
  const running = new Set<Worker>(), real = globalThis.Worker;
  globalThis.Worker = class extends real {
    constructor(...args: ConstructorParameters<typeof Worker>) {
      super(...args);
      running.add(this);
    }
    override terminate(): void {
      running.delete(this);
      super.terminate();
    }
  };
  try {
    await assert.rejects(
      openModel(dir, { threads: 1 }),
      (e) => e instanceof OatmillError && e.code === "invalid_tokenizer",
    );
    assert.equal(running.size, 0);
  } finally {
    globalThis.Worker = real;
    for (const w of running) w.terminate();
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test({
  name:
    "openModel() reads a checked artifact on all threads as it reads one that it hashes, and says how long",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const parent = await Deno.makeTempDir();
    const dir = `${parent}/a`;
    await writeArtifact(dir);
    const open = async () => {
      const { engine, times } = await openModel(dir, { threads: 2 });
      const logits = await engine.logits([1, 431, 454]);
      await engine.close();
      return { logits, times };
    };
    const checked = await open();
    await Deno.remove(`${dir}/${WEIGHTS_FILE}.verified`);
    const hashed = await open();
    assert.deepEqual(checked.logits, hashed.logits);
    assert.deepEqual([checked.times.total?.parallel, hashed.times.total?.parallel], [true, false]);
    for (
      const phase of ["header", "tokenizer", "weights", "threads", "kernels", "tables", "ready"] as const
    ) {
      assert.ok(checked.times.ms[phase]! >= 0, phase);
    }
    await Deno.remove(parent, { recursive: true });
  },
});

Deno.test("openModel() refuses weights that were replaced while they were read", async () => {
  const parent = await Deno.makeTempDir();
  const dir = `${parent}/a`;
  await writeArtifact(dir);
  const { file, header } = await openArtifact(dir);
  const weights = `${dir}/${WEIGHTS_FILE}`;
  const bytes = await Deno.readFile(weights);
  await file!.confirm();
  await Deno.writeFile(weights, bytes.map((b) => b ^ 1));
  await assert.rejects(file!.confirm(), { code: "invalid_artifact", message: /changed/ });
  assert.equal((await openArtifact(dir)).file, null);
  await Deno.writeFile(weights, bytes.subarray(0, bytes.length - 64));
  const job = readJob(file!, header.tensors, (t) => new Uint8Array(t.bytes));
  assert.throws(() => readPieces(job), /ends early/);
  await Deno.remove(parent, { recursive: true });
});

Deno.test("readPieces() shared by several readers fills every tensor once", async () => {
  const parent = await Deno.makeTempDir();
  const dir = `${parent}/a`;
  await writeArtifact(dir);
  const artifact = await openArtifact(dir);
  const fill = () => new Map(artifact.tensors.map((t) => [t.name, new Uint8Array(t.bytes)]));
  const expected = fill(), actual = fill();
  await artifact.load((t) => expected.get(t.name)!);
  const job = readJob(artifact.file!, artifact.tensors, (t) => actual.get(t.name)!);
  readPieces({ ...job, pieces: job.pieces.slice(0, 3) });
  Atomics.store(job.next, 0, 3); // the first reader had asked for a fourth
  readPieces(job);
  readPieces(job); // comes too late, reads nothing
  assert.deepEqual(actual, expected);
  await Deno.remove(parent, { recursive: true });
});
