import assert from "node:assert/strict";
import { openCheckpoint } from "../open.ts";

const refused = { code: "unsupported_format", message: /pickle.*runs code.*convert it to safetensors/ };

Deno.test("a folder of pickled weights is refused with the way out, before its config is looked at", async () => {
  for (
    const name of ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "consolidated.00.pth", "a.PT"]
  ) {
    const folder = await Deno.makeTempDir();
    try {
      await Deno.writeTextFile(`${folder}/${name}`, "never read");
      await assert.rejects(openCheckpoint(folder), { ...refused, message: new RegExp(name) });
      await assert.rejects(openCheckpoint(`${folder}/${name}`), refused);
      // Beside safetensors they do not matter: some folders hold both.
      await Deno.writeTextFile(`${folder}/model.safetensors`, "");
      await assert.rejects(openCheckpoint(folder), { code: "invalid_config" });
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  }
});
