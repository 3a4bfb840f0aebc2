import assert from "node:assert/strict";
import { join } from "node:path";
import { OatmillError } from "../../errors.ts";
import { fromPanels } from "../../kernels/panels.ts";
import { openCheckpoint } from "../open.ts";
import { packDense } from "../pack_dense.ts";
import { buildPlan } from "../build_plan.ts";
import { DEFAULT_MODEL, writeArtifact } from "../testing/artifact.ts";
import { HEADER_FILE, isArtifact, openArtifact, WEIGHTS_FILE } from "./artifact.ts";
import { ArtifactWriter } from "./artifact_writer.ts";

/** Loads all tensors into fresh arrays. */
async function load(dir: string): Promise<Map<string, Uint8Array>> {
  const tensors = new Map<string, Uint8Array>();
  await (await openArtifact(dir)).load((t) => {
    const bytes = new Uint8Array(t.bytes);
    tensors.set(t.name, bytes);
    return bytes;
  });
  return tensors;
}

const invalid = (pattern: RegExp) => (e: unknown) =>
  e instanceof OatmillError && e.code === "invalid_artifact" && pattern.test(e.message);

Deno.test("an artifact of format 1 loads as what it would be in the newest", async () => {
  const parent = await Deno.makeTempDir();
  const dir = join(parent, "a");
  await writeArtifact(dir);
  const expected = await load(dir);
  // The same artifact as the first version wrote it: groups in the file where panels are now.
  const { tensors, header } = await openArtifact(dir);
  const weights = await Deno.readFile(join(dir, WEIGHTS_FILE));
  const start = 8 + Number(new DataView(weights.buffer).getBigUint64(0, true));
  for (const { format, shape, offset, bytes } of tensors) {
    const at = weights.subarray(start + offset, start + offset + bytes);
    if (format.kind !== "vector") at.set(fromPanels(format, [shape[0], shape[1]], at));
  }
  await Deno.writeFile(join(dir, WEIGHTS_FILE), weights);
  const sha256 = new Uint8Array(await crypto.subtle.digest("SHA-256", weights)).toHex();
  const files = { ...header.files, [WEIGHTS_FILE]: { bytes: weights.length, sha256 } };
  await Deno.writeTextFile(join(dir, HEADER_FILE), JSON.stringify({ ...header, format: 1, files }));
  assert.deepEqual(await load(dir), expected);
  await Deno.remove(parent, { recursive: true });
});

Deno.test("an artifact loads what was written, byte for byte, with its tokenizer", async () => {
  const parent = await Deno.makeTempDir();
  const dir = join(parent, "a");
  await writeArtifact(dir);
  assert.ok(await isArtifact(dir));
  const artifact = await openArtifact(dir);
  assert.ok(artifact.tokenizerFiles);
  const checkpoint = await openCheckpoint(DEFAULT_MODEL);
  const expected = packDense(checkpoint, { values: "int8" });
  const packed = new Map<string, Uint8Array>();
  await expected.load((t) => {
    const bytes = new Uint8Array(t.bytes);
    packed.set(t.name, bytes);
    return bytes;
  });
  assert.deepEqual(await load(dir), packed);
  checkpoint.close();
  await Deno.remove(parent, { recursive: true });
});

Deno.test("a damaged artifact is refused with the reason", async () => {
  const parent = await Deno.makeTempDir();
  const dir = join(parent, "a");
  await writeArtifact(dir);
  const weights = join(dir, WEIGHTS_FILE);
  const bytes = await Deno.readFile(weights);

  const flipped = bytes.slice();
  flipped[flipped.length - 1000] ^= 1;
  await Deno.writeFile(weights, flipped);
  await assert.rejects(load(dir), invalid(/SHA-256/));

  await Deno.writeFile(weights, bytes.subarray(0, bytes.length - 64));
  await assert.rejects(load(dir), invalid(/bytes, must have/));

  await Deno.remove(weights);
  await assert.rejects(load(dir), invalid(/cannot be opened/));

  const header = JSON.parse(await Deno.readTextFile(join(dir, HEADER_FILE)));
  await Deno.writeFile(weights, bytes);
  const far = {
    ...header,
    tensors: header.tensors.map((t: object, i: number) => ({ ...t, offset: (i + 1) * 1e12 })),
  };
  await Deno.writeTextFile(join(dir, HEADER_FILE), JSON.stringify(far));
  await assert.rejects(load(dir), invalid(/tensors leave the file/));
  await Deno.writeTextFile(join(dir, HEADER_FILE), JSON.stringify(header));
  const tokenizer = join(dir, "tokenizer.json");
  await Deno.writeTextFile(tokenizer, await Deno.readTextFile(tokenizer) + " ");
  await assert.rejects(openArtifact(dir), invalid(/tokenizer\.json.*damaged/));

  const windows = { kind: "windows", windows: 7, bits: 8, blockChunks: 2, halves: true };
  const halved = { ...header, tensors: [{ ...header.tensors[0], format: windows }] };
  await Deno.writeTextFile(join(dir, HEADER_FILE), JSON.stringify(halved));
  await assert.rejects(openArtifact(dir), invalid(/tensors\.0\.format.*halves with more than 6 windows/));

  header.tensors[3].offset = 0;
  await Deno.writeTextFile(join(dir, HEADER_FILE), JSON.stringify(header));
  await assert.rejects(openArtifact(dir), invalid(/wrong offsets/));

  await Deno.writeTextFile(join(dir, HEADER_FILE), "{");
  await assert.rejects(openArtifact(dir), invalid(/cannot be read/));
  await Deno.remove(parent, { recursive: true });
});

Deno.test("sizes of blocks that no block can have are refused", async () => {
  const parent = await Deno.makeTempDir();
  const dir = join(parent, "a");
  await writeArtifact(dir);
  const header = JSON.parse(await Deno.readTextFile(join(dir, HEADER_FILE)));
  const own = { heads: 8, kvHeads: 4, intermediateSize: 704 };
  const opened = async (blockSizes: readonly object[]) => {
    const changed = { ...header, spec: { ...header.spec, blockSizes } };
    await Deno.writeTextFile(join(dir, HEADER_FILE), JSON.stringify(changed));
    return await openArtifact(dir);
  };
  const six = (last: object) => [own, own, own, own, own, last];
  assert.ok(buildPlan(await opened(six(own))));
  await assert.rejects(opened([own]), invalid(/one entry for each block/));
  await assert.rejects(opened(six({ ...own, kvHeads: 3 })), invalid(/multiple of kvHeads/));
  await assert.rejects(opened(six({ ...own, intermediateSize: 0 })), invalid(/intermediateSize/));
  const smaller = await opened(six({ ...own, intermediateSize: 640 }));
  assert.throws(() => buildPlan(smaller), invalid(/block\.5\.gate\.w.*must be a packed layer \[640,256\]/));
  await Deno.remove(parent, { recursive: true });
});

Deno.test("numbers of experts that no block can have are refused", async () => {
  const parent = await Deno.makeTempDir();
  const dir = join(parent, "a");
  await writeArtifact(dir);
  const header = JSON.parse(await Deno.readTextFile(join(dir, HEADER_FILE)));
  const opened = async (experts: object) => {
    const mlp = { ...header.spec.mlp, experts };
    const changed = { ...header, spec: { ...header.spec, mlp } };
    await Deno.writeTextFile(join(dir, HEADER_FILE), JSON.stringify(changed));
    return await openArtifact(dir);
  };
  await assert.rejects(opened({ count: 2, perToken: 3 }), invalid(/more experts than there are/));
  await assert.rejects(opened({ count: 1e9, perToken: 1 }), invalid(/count/));
  await assert.rejects(opened({ count: 2, perToken: 0.5 }), invalid(/perToken/));
  const other = await opened({ count: 2, perToken: 1 });
  assert.throws(() => buildPlan(other), invalid(/"block\.0\.router" is missing/));
  await Deno.remove(parent, { recursive: true });
});

Deno.test("isArtifact() is false for files, other folders and nothing", async () => {
  assert.equal(await isArtifact(`${DEFAULT_MODEL}config.json`), false);
  assert.equal(await isArtifact(DEFAULT_MODEL), false);
  assert.equal(await isArtifact(`${DEFAULT_MODEL}missing`), false);
});

Deno.test("an artifact that is not finished leaves nothing, and a taken name is refused", async () => {
  const parent = await Deno.makeTempDir();
  const dir = join(parent, "a");
  const writer = await ArtifactWriter.create(dir, { maxTensors: 4 });
  await writer.add("finalNorm", { kind: "vector" }, [8], new Uint8Array(32));
  await assert.rejects(writer.add("x", { kind: "vector" }, [8], new Uint8Array(31)), RangeError);
  const tokenizer = { tokenizer: { model: { type: "BPE", vocab: 1 } }, config: {}, chatTemplate: null };
  // Cast: the tokenizer is refused before anything else is read.
  await assert.rejects(writer.finish({} as Parameters<typeof writer.finish>[0], tokenizer), {
    code: "invalid_tokenizer",
  });
  await writer.abort();
  assert.deepEqual([...Deno.readDirSync(parent)], []);
  await Deno.mkdir(dir);
  await assert.rejects(
    ArtifactWriter.create(dir, { maxTensors: 4 }),
    (e) => e instanceof OatmillError && e.code === "conflict",
  );
  await Deno.remove(parent, { recursive: true });
});
