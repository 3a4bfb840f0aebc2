import assert from "node:assert/strict";
import type { ArtifactHeader } from "./artifact_header.ts";
import { artifactVersion } from "./artifact_version.ts";

/** The parts of a header that matter here. */
const header = {
  ...{ created: "2026-01-01T00:00:00Z", oatmill: "1", name: "a", perplexity: null, layers: [] },
  ...{ format: 3, spec: { family: "llama", norm: { kind: "rmsnorm", eps: 1e-5 } }, tensors: [{ name: "t" }] },
  files: { "model.safetensors": { bytes: 7, sha256: "ab" } },
} as unknown as ArtifactHeader;
const version = artifactVersion(header);

Deno.test("artifactVersion() is the same for what answers alike, however and whenever it was made", () => {
  assert.match(version, /^[0-9a-f]{64}$/);
  const told = { created: "2027-01-01T00:00:00Z", oatmill: "9", name: "b", recipe: undefined, layers: [1] };
  assert.equal(artifactVersion({ ...header, ...told } as unknown as ArtifactHeader), version);
  const reversed = Object.fromEntries(Object.entries(header).reverse()) as unknown as ArtifactHeader;
  assert.equal(artifactVersion(JSON.parse(JSON.stringify(reversed))), version);
});

Deno.test("artifactVersion() differs with any file and with how the tensors are read", () => {
  const changes = [
    { files: { "model.safetensors": { bytes: 7, sha256: "cd" } } },
    { files: { ...header.files, "tokenizer.json": { bytes: 7, sha256: "ab" } } },
    { spec: { ...header.spec, norm: { kind: "rmsnorm", eps: 1e-6 } } },
    { tensors: [] },
  ];
  const versions = changes.map((change) => artifactVersion({ ...header, ...change } as ArtifactHeader));
  assert.equal(new Set([version, ...versions]).size, changes.length + 1);
});
