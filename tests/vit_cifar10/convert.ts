/**
 * Writes the CIFAR-10 ViT as a folder that Oatmill opens:
 * `deno run --allow-read --allow-write tests/vit_cifar10/convert.ts best_vit.pth OUT`.
 */
import { writeVitFolder } from "./vit_folder.ts";

const [checkpoint, folder] = Deno.args;
if (!checkpoint || !folder) {
  console.error("Usage: convert.ts CHECKPOINT.pth FOLDER");
  Deno.exit(2);
}
await writeVitFolder(checkpoint, folder);
