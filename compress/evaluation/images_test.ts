import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { oracleTest, shared } from "../../models/testing/shared.ts";
import { imageAccuracy } from "./image_accuracy.ts";
import { readImageFolder } from "./image_folder.ts";

async function withImages(classes: Record<string, number[]>, run: (folder: string) => Promise<void>) {
  const folder = await Deno.makeTempDir();
  try {
    for (const [label, images] of Object.entries(classes)) {
      await Deno.mkdir(join(folder, label), { recursive: true });
      for (const [i, byte] of images.entries()) {
        await Deno.writeFile(join(folder, label, `${i}.JPG`), Uint8Array.of(byte));
      }
      await Deno.writeTextFile(join(folder, label, "notes.txt"), "no image");
    }
    await run(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
/** The label that the image's one byte names, the next label second, and so on. */
const classifyOf = (labels: number) => (image: Uint8Array) =>
  Promise.resolve(Float32Array.from({ length: labels }, (_, i) => -((i - image[0] + labels) % labels)));

Deno.test("readImageFolder() takes a class for each subfolder, of the part `test` where there is one", async () => {
  await withImages({ "test/cat": [1], "test/ant": [0, 0], "train/cat": [9, 9] }, async (folder) => {
    const { labels, images } = await readImageFolder(folder);
    assert.deepEqual(labels, ["ant", "cat"]);
    assert.deepEqual(images.map(({ path, label }) => [path.slice(folder.length + 1), label]), [
      [join("test", "ant", "0.JPG"), 0],
      [join("test", "ant", "1.JPG"), 0],
      [join("test", "cat", "0.JPG"), 1],
    ]);
    await assert.rejects(readImageFolder(join(folder, "test", "ant")), { code: "invalid_request" });
  });
});

Deno.test("imageAccuracy() counts the best label, the five best, and each class", async () => {
  const names = ["a", "b", "c", "d", "e", "f"];
  await withImages({ ...Object.fromEntries(names.map((n) => [n, []])), b: [1, 1, 0, 2] }, async (folder) => {
    // Right twice; label 1 comes second after 0, and last (sixth) after 2.
    const found = await imageAccuracy(await readImageFolder(folder), classifyOf(6));
    assert.deepEqual([found.accuracy, found.top5, found.count], [0.5, 0.75, 4]);
    assert.deepEqual(found.classes[1], { label: "b", count: 4, accuracy: 0.5 });
    assert.equal(found.classes[0].count, 0);
  });
  await withImages({ a: [0], b: [0] }, async (folder) => {
    const data = await readImageFolder(folder), seen: number[] = [];
    const found = await imageAccuracy(data, classifyOf(2), { onProgress: (done) => seen.push(done) });
    assert.deepEqual([found.accuracy, found.top5, seen], [0.5, null, [1, 2]]);
    await assert.rejects(imageAccuracy(data, classifyOf(2), { signal: AbortSignal.abort() }), {
      code: "cancelled",
    });
  });
});

oracleTest("readImageFolder() reads CIFAR-10", "data/vision/cifar10", async () => {
  const { labels, images } = await readImageFolder(fileURLToPath(shared("data/vision/cifar10")));
  assert.deepEqual([labels.length, labels[0], labels[9], images.length], [10, "airplane", "truck", 1000]);
});
