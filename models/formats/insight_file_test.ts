import assert from "node:assert/strict";
import { join } from "node:path";
import { writeArtifact } from "../testing/artifact.ts";
import { HEADER_FILE, openArtifact } from "./artifact.ts";
import {
  encodeInsight,
  INSIGHT_FILE,
  insightSchema,
  newInsight,
  readInsight,
  storeInsight,
} from "./insight_file.ts";
import { insightSample } from "../testing/insight.ts";

async function withArtifact(use: (dir: string) => Promise<void>): Promise<void> {
  const parent = await Deno.makeTempDir();
  try {
    await writeArtifact(join(parent, "a"));
    await use(join(parent, "a"));
  } finally {
    await Deno.remove(parent, { recursive: true });
  }
}

Deno.test("insight is stored with an artifact, replaced, and read back", () =>
  withArtifact(async (dir) => {
    const old = await openArtifact(dir);
    assert.equal(await readInsight(old), null, "artifacts had none before");
    await storeInsight(
      dir,
      old.header,
      newInsight({ calibration: null, blocks: [], inputs: [], layers: [] }),
    );
    const insight = insightSample({ blocks: 2 });
    const header = await storeInsight(dir, (await openArtifact(dir)).header, insight);
    const artifact = await openArtifact(dir);
    assert.deepEqual(artifact.header, header);
    assert.deepEqual(
      await readInsight(artifact),
      JSON.parse(new TextDecoder().decode(encodeInsight(insight))),
    );
    assert.deepEqual(
      Object.keys(header.files).sort(),
      [...Object.keys(old.header.files), INSIGHT_FILE].sort(),
    );
  }));

Deno.test("an insight file that was changed, or is none of this version, is refused with the way out", () =>
  withArtifact(async (dir) => {
    const path = join(dir, INSIGHT_FILE);
    const store = async (json: unknown) => {
      await storeInsight(dir, (await openArtifact(dir)).header, json as Parameters<typeof storeInsight>[2]);
      return await openArtifact(dir);
    };
    const sample = insightSample({ blocks: 1 });
    for (
      const json of [{ ...sample, version: 2 }, { ...sample, surprise: 1 }, [], { ...sample, layers: [{}] }]
    ) {
      await assert.rejects(readInsight(await store(json)), {
        code: "invalid_artifact",
        message: /--insight/,
      });
    }
    await Deno.writeTextFile(path, "{}");
    await assert.rejects(openArtifact(dir), { code: "invalid_artifact", message: /insight\.json differs/ });
  }));

Deno.test("an artifact can be opened when storing its insight was interrupted", () =>
  withArtifact(async (dir) => {
    const { header } = await openArtifact(dir);
    const stored = await storeInsight(dir, header, insightSample({ blocks: 1 }));
    // The header of the first step with the file of the second.
    const { [INSIGHT_FILE]: _, ...files } = stored.files;
    await Deno.writeTextFile(join(dir, HEADER_FILE), JSON.stringify({ ...stored, files }));
    await Deno.writeTextFile(join(dir, INSIGHT_FILE), "{");
    assert.equal(await readInsight(await openArtifact(dir)), null);
  }));

Deno.test("the file's fields stay what they are", () => {
  const decoded = insightSchema.parse(
    JSON.parse(new TextDecoder().decode(encodeInsight(insightSample({ blocks: 1 })))),
  );
  assert.deepEqual(Object.keys(decoded), [
    "version",
    "calibration",
    "multiples",
    "blocks",
    "inputs",
    "layers",
  ]);
  const keys = (value: object) => Object.keys(value).join(" ");
  assert.equal(keys(decoded.layers[0]), "name outliers inputError scaled plain windows");
  assert.equal(keys(decoded.layers[0].scaled!), "method largest quantiles effectiveRank energy energyOfRank");
  assert.equal(keys(decoded.layers[0].windows!), "places filled kinds blocks");
  assert.equal(
    keys(decoded.inputs[0]),
    "name columns dead rms median histogram outlierCount outlierColumns",
  );
});

Deno.test("encodeInsight() keeps five digits and all whole numbers", () => {
  const insight = insightSample({ blocks: 1 });
  insight.inputs[0].rms = 1 / 3;
  insight.layers[0].windows!.places = 123_456_789;
  const { inputs, layers } = JSON.parse(new TextDecoder().decode(encodeInsight(insight)));
  assert.equal(inputs[0].rms, 0.33333);
  assert.equal(layers[0].windows.places, 123_456_789);
});
