import assert from "node:assert/strict";
import { join } from "node:path";
import { writeArtifact } from "../testing/artifact.ts";
import { type Artifact, openArtifact, WEIGHTS_FILE } from "./artifact.ts";
import { openTensors } from "./artifact_tensors.ts";

async function withArtifact(use: (artifact: Artifact) => Promise<void>): Promise<void> {
  const parent = await Deno.makeTempDir();
  try {
    await writeArtifact(join(parent, "a"));
    await use(await openArtifact(join(parent, "a")));
  } finally {
    await Deno.remove(parent, { recursive: true });
  }
}

Deno.test("tensors read one by one are those that load() gives, from the file and from memory", () =>
  withArtifact(async (artifact) => {
    assert.ok(artifact.file, "just written: its hash is known");
    const expected = new Map<string, Uint8Array>();
    await artifact.load(({ name, bytes }) => {
      const tensor = new Uint8Array(bytes);
      expected.set(name, tensor);
      return tensor;
    });
    for (const source of [artifact, { ...artifact, file: null }]) {
      await using tensors = await openTensors(source);
      for (const name of [...expected.keys()].reverse()) {
        assert.deepEqual(tensors.read(name)?.bytes, expected.get(name), name);
      }
      assert.equal(tensors.read("nothing"), null);
    }
  }));

Deno.test("a file that is changed while it is read is noticed", () =>
  withArtifact(async (artifact) => {
    const tensors = await openTensors(artifact);
    const path = join(artifact.path, WEIGHTS_FILE), bytes = await Deno.readFile(path);
    bytes[bytes.length - 1] ^= 1;
    await Deno.writeFile(path, bytes);
    await assert.rejects(async () => await tensors[Symbol.asyncDispose](), { code: "invalid_artifact" });
  }));
