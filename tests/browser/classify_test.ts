/** Images in the playground, by a real classifier on a real server. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { ServerProcess, sharedFolder } from "../server_process.ts";
import { browserTest } from "./browser.ts";

const IMAGE = "smooth_48x48.jpg";
const oracles = sharedFolder("oracles");

async function upload(server: ServerProcess, folder: string): Promise<void> {
  const body = new FormData();
  body.append("name", "vit");
  body.append("recipe", JSON.stringify({ method: "none", values: "f32" }));
  for (const { name } of Deno.readDirSync(folder)) {
    if (name !== "expected.json") {
      body.append("files", new Blob([await Deno.readFile(join(folder, name))]), name);
    }
  }
  const { id } = await (await server.get("/v1/models", { method: "POST", body })).json();
  await (await server.get(`/v1/compressions/${id}/events?stream=true`)).text();
}

const title = oracles ? "" : " (ignored: ../shared/oracles is absent)";
browserTest(`an image that is chosen or dropped gets the model's labels${title}`, async (browser) => {
  if (!oracles) return;
  const data = await Deno.makeTempDir();
  try {
    await using server = await ServerProcess.start(data, { args: ["--no-bundled", "--threads", "1"] });
    await upload(server, join(oracles, "vit"));
    await using console = await browser.page(server.url);
    const { page } = console, file = join(oracles, "preprocess", IMAGE);
    await console.open("playground/vit");
    await page.setInputFiles("#image", file);
    await page.waitForSelector("img[alt*=smooth]");
    const expected = JSON.parse(await Deno.readTextFile(join(oracles, "preprocess/expected.json")));
    const logits: number[] = expected.vit.images[IMAGE].logits.flat();
    const likeliest = `class_${logits.indexOf(Math.max(...logits))}`;
    await page.waitForSelector("caption");
    assert.equal(await page.locator("tbody th").first().innerText(), likeliest);
    await console.checkAccessible();
    await console.screenshot("classify");
    const dropped = await page.evaluateHandle(async () => {
      const transfer = new DataTransfer();
      const bytes = await new Promise<Blob>((done) =>
        document.createElement("canvas").toBlob((b) => done(b!))
      );
      transfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
      return transfer;
    });
    await page.dispatchEvent(".drop", "drop", { dataTransfer: dropped });
    await page.waitForSelector("img[alt*=dropped]");
    await page.waitForSelector("caption");
  } finally {
    await Deno.remove(data, { recursive: true });
  }
});
