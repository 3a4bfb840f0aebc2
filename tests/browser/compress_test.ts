/** A real model through the page on a real server: uploaded, compressed while the page watches, looked at, asked. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { ROOT, ServerProcess } from "../server_process.ts";
import { browserTest, type ConsolePage } from "./browser.ts";

const MODEL = join(ROOT, "models/default");
/** A job has the lowest priority: seconds alone, minutes beside other work. */
const JOB_MS = 400_000;
/** Three seconds, the warm-up, and answers that a busy machine gives late. */
const LOAD_MS = 90_000;
/** Small enough for a test. */
const QUICK = {
  method: "oats",
  "allocation.kind": "owl",
  rank_ratio: "0.25",
  iterations: "2",
  refine: "false",
  "calibration.sequences": "4",
  "calibration.length": "32",
  "evaluate.tokens": "128",
};

async function fillRecipe({ page }: ConsolePage): Promise<void> {
  await page.click("summary:has-text('All fields')");
  for (const [path, value] of Object.entries(QUICK)) {
    const field = page.locator(`[id="recipe-${path}"]`);
    if (await field.evaluate((e) => e.tagName) === "SELECT") await field.selectOption(value);
    else await field.fill(value);
  }
}

/** Files of the folder that are no part of a model, and the first chat with a model without a template. */
const REFUSED = /status of 400/;

/** Each chart shows lines, and its table the same numbers. */
async function checkCharts({ page }: ConsolePage, titles: readonly string[], least = 6): Promise<void> {
  for (const title of titles) {
    const chart = page.locator("figure", { hasText: title });
    assert.ok(await chart.locator("canvas").evaluate(isPainted), `${title} is painted`);
    await chart.locator("summary").click();
    await chart.locator("tbody td").first().waitFor();
    const values = (await chart.locator("tbody td").allInnerTexts()).filter((text) => text !== "–");
    assert.ok(values.length >= least && values.some((text) => parseFloat(text) > 0), `${title}: ${values}`);
  }
}
/** Runs in the page: more colours than those of the axes. */
function isPainted(element: Element): boolean {
  const canvas = element as HTMLCanvasElement;
  const { data } = canvas.getContext("2d")!.getImageData(0, 0, canvas.width, canvas.height);
  const coloured = (i: number) =>
    data[i + 3] > 200 && Math.max(...data.slice(i, i + 3)) - Math.min(...data.slice(i, i + 3)) > 40;
  for (let i = 0; i < data.length; i += 4) if (coloured(i)) return true;
  return false;
}

browserTest(
  "a model goes up through the page, is compressed before its eyes, and answers",
  async (browser) => {
    const data = await Deno.makeTempDir();
    try {
      await using server = await ServerProcess.start(data, { args: ["--no-bundled", "--threads", "1"] });
      await using console = await browser.page(server.url, { allowed: REFUSED });
      const { page } = console;
      await console.open("compress");
      await page.waitForSelector("text=All fields");
      await page.setInputFiles("#folder", MODEL);
      await page.fill("#name", "stories");
      await fillRecipe(console);
      await console.checkAccessible();
      await console.screenshot("compress");
      await page.click("button:has-text('Upload and compress')");
      await page.waitForURL(/#\/compress\/cmp-/);
      await page.waitForSelector("dd:has-text('succeeded')", { timeout: JOB_MS });
      await page.waitForSelector("text=Outliers of blocks");
      await checkCharts(console, [
        "Mean error of layers so far",
        "Outliers of blocks",
        "Rank of L",
        "Kept share of S",
      ]);
      await console.checkAccessible();
      await console.screenshot("job");
      await page.setViewportSize({ width: 375, height: 800 });
      await console.checkWidth();
      await console.screenshot("job-narrow");
      await page.setViewportSize({ width: 1280, height: 800 });

      const { data: [model] } = await (await server.get("/v1/models")).json();
      assert.deepEqual([model.id, model.method], ["stories", "oats"]);
      await page.click("text=Open the model");
      const [download] = await Promise.all([
        page.waitForEvent("download"),
        page.click("a:has-text('tokenizer.json')"),
      ]);
      assert.equal(
        (await Deno.stat(await download.path())).size,
        model.files.find((f: { name: string }) => f.name === "tokenizer.json").bytes,
      );
      await page.click("text=Try it");
      await page.fill("#question", "Once upon a time");
      await page.keyboard.press("Enter");
      await page.waitForSelector(".figures:has-text('tokens/s')");
      await page.waitForSelector("text=This model has no chat template");
      assert.ok((await page.locator(".answer").innerText()).length > 20);
      await console.open("load");
      await page.fill("#load-seconds", "3");
      await page.click("button:has-text('Start')");
      await page.waitForSelector("td:has-text('succeeded')", { timeout: LOAD_MS });
      await checkCharts(console, ["Tokens a second", "Time to first token"], 2);
      await console.screenshot("load");
      await console.open("status");
      await page.waitForSelector("td:has-text('oats'), th:has-text('stories')");
      await console.checkAccessible();
      await console.screenshot("status-loaded");
    } finally {
      await Deno.remove(data, { recursive: true });
    }
  },
);
