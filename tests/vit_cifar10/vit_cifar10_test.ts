import assert from "node:assert/strict";
import { readImageFolder } from "../../compress/evaluation/image_folder.ts";
import { imageAccuracy } from "../../compress/evaluation/image_accuracy.ts";
import { openModel } from "../../engine/open_model.ts";
import { oracleTest, shared } from "../../models/testing/shared.ts";
import { processorOf } from "../../vision/processor_of.ts";
import { readImage } from "../../vision/read_image.ts";
import { readStateDict } from "./state_dict.ts";
import { writeVitFolder } from "./vit_folder.ts";

const CHECKPOINT = shared("data/vision/vit_cifar10_shamail/best_vit.pth").pathname;
const IMAGES = shared("data/vision/cifar10").pathname;
/** 60 test images; with 2 or 8 heads, levels to 0..1 or another norm at most 0.45 of them are right. */
const PER_CLASS = 6, LEAST_ACCURACY = 0.5;

oracleTest("the CIFAR-10 ViT recognises test images", "data/vision", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await writeVitFolder(CHECKPOINT, folder);
    const { encoder, engine } = await openModel(folder, { threads: 1 });
    try {
      const config = processorOf("vit", encoder);
      const { labels, images } = await readImageFolder(IMAGES);
      assert.deepEqual(encoder!.labels, labels);
      const some = { labels, images: images.filter((_, i) => i % 100 < PER_CLASS) };
      const { accuracy } = await imageAccuracy(some, async (bytes) => {
        const { logits } = await encoder!.run(await readImage(bytes, config));
        return logits!;
      });
      assert.ok(accuracy >= LEAST_ACCURACY, `accuracy ${accuracy}`);
    } finally {
      await engine.close();
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

oracleTest(
  "readStateDict() reads every tensor of the checkpoint and nothing else",
  "data/vision",
  async () => {
    const state = await readStateDict(CHECKPOINT);
    assert.equal(state.size, 80);
    assert.deepEqual(state.get("patch_embed.proj.weight")!.shape, [128, 3, 4, 4]);
    for (const [name, { shape, data }] of state) {
      assert.equal(data.length, shape.reduce((a, b) => a * b, 1), name);
      assert.ok(data.every(Number.isFinite), name);
    }
  },
);

oracleTest("readStateDict() calls nothing that a pickle names", "data/vision", async () => {
  const bytes = await Deno.readFile(CHECKPOINT), name = "torch._utils";
  const at = new TextDecoder("latin1").decode(bytes).indexOf(name);
  bytes.set(new TextEncoder().encode("posix._utils".slice(0, name.length)), at);
  const path = await Deno.makeTempFile({ suffix: ".pth" });
  try {
    await Deno.writeFile(path, bytes);
    await assert.rejects(readStateDict(path), /does not call posix/);
  } finally {
    await Deno.remove(path);
  }
});
