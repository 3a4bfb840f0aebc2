/** The console's pages over a server with a fake engine: what they look like, and what they do with keys and text. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { OatmillError } from "../../errors.ts";
import type { RunTask } from "../../routes/compress_task.ts";
import { fakeRun, FakeServer } from "../fake_server.ts";
import { browserTest, type ConsolePage } from "./browser.ts";

const PAGES: readonly { readonly path: string; readonly sees: string }[] = [
  { path: "models", sees: "table >> text=oatmill" },
  { path: "models/fake", sees: "figure >> nth=3" },
  { path: "compress", sees: "text=All fields" },
  { path: "playground", sees: "#question" },
  { path: "load", sees: "button:has-text('Start')" },
  { path: "status", sees: "text=Memory of the process" },
];
const LOOKS = [
  { name: "light", width: 1280, dark: false },
  { name: "dark", width: 1280, dark: true },
  { name: "narrow", width: 375, dark: false },
  { name: "narrow-dark", width: 375, dark: true },
];

for (const { name, ...look } of LOOKS) {
  browserTest(`pages have no serious accessibility fault and fit: ${name}`, async (browser) => {
    await using server = await FakeServer.start();
    await using console = await browser.page(server.url, look);
    for (const { path, sees } of PAGES) {
      await console.open(path);
      await console.page.waitForSelector(sees);
      await console.checkAccessible();
      await console.checkWidth();
      await console.screenshot(`${path.replace("/", "-")}-${name}`);
    }
  });
}

async function ask({ page }: ConsolePage, question: string): Promise<void> {
  await page.fill("#question", question);
  await page.keyboard.press("Enter");
}

browserTest(
  "the playground streams answers, of two models side by side, and tells their speed",
  async (browser) => {
    await using server = await FakeServer.start({ engine: { script: "Oats are milled.", tokenDelayMs: 2 } });
    await server.addModel("other");
    await using console = await browser.page(server.url);
    const { page } = console;
    await console.open("playground/fake");
    await page.selectOption("#model-2", "other");
    await ask(console, "What are oats?");
    for (const model of ["fake", "other"]) {
      await page.waitForSelector(`[aria-label="Conversation with ${model}"] .figures:has-text("16 tokens")`);
    }
    assert.deepEqual(
      await page.locator(".answer").allTextContents(),
      Array(2).fill("Answer:Oats are milled."),
    );
    for (const figures of await page.locator(".figures").allInnerTexts()) {
      assert.match(figures, /first text after .* · [\d.,]+ tokens\/s · 16 tokens/);
    }
    await console.screenshot("playground-two");
  },
);

browserTest("Stop ends an answer on the server too", async (browser) => {
  await using server = await FakeServer.start({ engine: { tokenDelayMs: 5, contextLength: 100_000 } });
  await using console = await browser.page(server.url);
  await console.open("playground/fake");
  await console.page.click("text=Parameters");
  await console.page.fill("#setting-max_tokens", "90000");
  await ask(console, "For ever");
  await console.page.waitForSelector("text=/abcdef/");
  await console.page.click("button:has-text('Stop')");
  await console.page.waitForSelector("text=Stopped");
  await console.page.waitForSelector("button:has-text('Send')");
  assert.equal(server.engines[0].running, 0);
});

browserTest("what a user or a model writes stays text", async (browser) => {
  const attack = `<img src=x onerror="document.title='broken'"><script>document.title='broken'</script>`;
  await using server = await FakeServer.start({ engine: { script: attack } });
  await using console = await browser.page(server.url);
  await console.open("playground/fake");
  await ask(console, attack);
  await console.page.waitForSelector(".figures");
  assert.equal(await console.page.textContent(".answer"), `Answer:${attack}`);
  assert.equal(await console.page.locator(".log img, .log script").count(), 0);
  assert.doesNotMatch(await console.page.title(), /broken/);
});

browserTest("a key is asked for, kept for the tab, and its missing scope named", async (browser) => {
  await using server = await FakeServer.start({ apiKeys: ["key-of-the-operator"] });
  const { key } = server.keys.add("reader", ["read"]);
  await using console = await browser.page(server.url, { allowed: /status of 40[13]/ });
  const { page } = console;
  await console.open("models");
  await page.waitForSelector("text=An API key is needed");
  await console.checkAccessible();
  await console.screenshot("key");
  await page.fill("#api-key", "not-a-key-at-all");
  await page.keyboard.press("Enter");
  await page.waitForSelector("text=Unknown API key");
  await page.fill("#api-key", key);
  await page.keyboard.press("Enter");
  await page.waitForSelector("table >> text=fake");
  await page.reload();
  await page.waitForSelector("table >> text=fake");
  await page.click("button:has-text('Delete')");
  await page.click("dialog[open] button:has-text('Delete')");
  await page.waitForSelector("text=This API key may not do that.");
  assert.match(await page.innerText("dialog [role=alert]"), /needs the scope "admin"/);
});

browserTest("a key that is refused is asked for once, not at every poll", async (browser) => {
  await using server = await FakeServer.start({ apiKeys: ["key-of-the-operator"] });
  await using console = await browser.page(server.url, { allowed: /status of 401/ });
  await console.open("status");
  await console.page.waitForSelector("#api-key");
  await console.page.keyboard.press("Escape");
  await console.page.waitForSelector("[role=alert] >> text=An API key is needed");
  const asked = await console.page.waitForResponse(/v1\/status/);
  assert.equal(asked.status(), 401);
  assert.equal(await console.page.locator("#api-key").count(), 0);
});

browserTest("everything is reached and done with the keyboard", async (browser) => {
  await using server = await FakeServer.start({ engine: { script: "Yes." } });
  await using console = await browser.page(server.url);
  const { page } = console;
  const focused = () => page.evaluate(() => document.activeElement?.textContent?.trim() ?? "");
  const tabTo = async (name: string) => {
    for (let i = 0; i < 40 && await focused() !== name; i++) await page.keyboard.press("Tab");
    assert.equal(await focused(), name);
  };
  await console.open("models");
  await page.waitForSelector("table >> text=fake");
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "Skip to content");
  await tabTo("Playground");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#question");
  await page.waitForFunction(() => document.activeElement?.id === "main");
  for (let i = 0; i < 10 && !await page.evaluate(() => document.activeElement?.id === "question"); i++) {
    await page.keyboard.press("Tab");
  }
  await page.keyboard.type("Can you?");
  await page.keyboard.press("Enter");
  await page.waitForSelector("text=Yes.");
  await console.open("models");
  await page.waitForSelector("table >> text=fake");
  await tabTo("Delete fake");
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog[open]");
  await page.keyboard.press("Escape");
  await page.waitForSelector("dialog h2", { state: "detached" });
  assert.equal(await focused(), "Delete fake");
  await page.keyboard.press("Enter");
  await page.waitForSelector("dialog[open]");
  await tabTo("Delete");
  await page.keyboard.press("Enter");
  await page.waitForSelector("text=No models yet.");
});

browserTest("a model is measured beside a dense one of its shape", async (browser) => {
  await using server = await FakeServer.start();
  await using console = await browser.page(server.url);
  const { page } = console;
  await console.open("models");
  await page.click("button:has-text('Measure')");
  await page.waitForSelector("td:has-text('60') >> text=+50 %");
  await page.waitForSelector("[data-label='Tokens/s, dense int8']:has-text('40')");
  await console.checkAccessible();
  await console.screenshot("models-measured");
});

browserTest("a model's name is pointed to another of its versions", async (browser) => {
  await using server = await FakeServer.start();
  const old = (await (await server.get("/v1/models/fake")).json()).version;
  await server.addModel("fake", "other weights");
  await using console = await browser.page(server.url);
  const { page } = console;
  await console.open("models/fake");
  await page.click(`button:has-text("Use ${old.slice(0, 12)}")`);
  await page.waitForSelector(`tr:has-text("${old.slice(0, 12)}") >> text=current`);
  assert.equal((await (await server.get("/v1/models/fake")).json()).version, old);
  await console.checkAccessible();
  await console.screenshot("versions");
});

/** Three parts. */
const FILE_BYTES = 20 * 2 ** 20;

browserTest("an upload that stops goes on where it was, and becomes a job", async (browser) => {
  await using server = await FakeServer.start();
  await using console = await browser.page(server.url, { allowed: /ERR_FAILED/ });
  const { page } = console;
  const folder = await Deno.makeTempDir(), file = join(folder, "big.gguf");
  await Deno.writeFile(file, new Uint8Array(FILE_BYTES));
  const sent: string[] = [];
  page.on("requestfinished", (request) => {
    if (request.url().endsWith("/parts")) sent.push(request.url());
  });
  await console.open("compress");
  await page.setInputFiles("#files", file);
  const held = await page.route("**/parts", (route) => sent.length > 0 ? undefined : route.continue());
  await page.click("button:has-text('Upload and compress')");
  await page.waitForSelector("text=/40 % of 21 MB/");
  await page.click("button:has-text('Stop the upload')");
  await held.dispose();
  await page.reload();
  await page.setInputFiles("#files", file);
  await page.fill("#recipe-rate", "0.4");
  await page.click("button:has-text('Upload and compress')");
  await page.waitForURL(/#\/compress\/cmp-/);
  await page.waitForSelector("dd:has-text('succeeded')");
  assert.equal(sent.length, 3);
  assert.equal(new Set(sent).size, 1, "one upload");
  const { data: [job] } = await (await server.get("/v1/compressions")).json();
  assert.deepEqual([job.model, job.recipe.rate, job.files[0].bytes], ["big", 0.4, FILE_BYTES]);
  await page.click("button:has-text('Delete them')");
  await page.waitForSelector("text=The uploaded files are deleted.");
  assert.deepEqual((await (await server.get("/v1/files")).json()).data, []);
  await Deno.remove(folder, { recursive: true });
});

browserTest("a browser that keeps nothing sends files all the same, but for empty ones", async (browser) => {
  await using server = await FakeServer.start();
  await using console = await browser.page(server.url);
  const { page } = console;
  await page.addInitScript(() =>
    Storage.prototype.setItem = () => {
      throw new DOMException("The quota has been exceeded", "QuotaExceededError");
    }
  );
  await console.open("compress");
  const file = (name: string, text: string) => ({ name, mimeType: "", buffer: Buffer.from(text) });
  await page.setInputFiles("#files", [file("notes.txt", ""), file("a.gguf", "GGUF")]);
  await page.click("button:has-text('Upload and compress')");
  await page.waitForSelector("dd:has-text('succeeded')");
  const { data: [job] } = await (await server.get("/v1/compressions")).json();
  assert.deepEqual(job.files.map((f: { name: string }) => f.name), ["a.gguf"]);
  await console.open("compress");
  await page.setInputFiles("#files", [file("notes.txt", "")]);
  await page.click("button:has-text('Upload and compress')");
  await page.waitForSelector("text=None of these files is part of a model");
  await page.waitForSelector("text=left out: it is empty");
});

browserTest("the server fetches a model of a hub when the page asks it to", async (browser) => {
  const hubs: unknown[] = [];
  const run: RunTask = (task, options) => {
    const { access: _, ...hub } = task.hub!;
    hubs.push(hub);
    return fakeRun(task, options);
  };
  await using server = await FakeServer.start({ run });
  await using console = await browser.page(server.url, { width: 375 });
  const { page } = console;
  await console.open("compress");
  await page.fill("#hub", "https://huggingface.co/org/tiny");
  await page.fill("#revision", "v2");
  await console.checkAccessible();
  await console.checkWidth();
  await console.screenshot("compress-hub");
  await page.click("button:has-text('Fetch and compress')");
  await page.waitForURL(/#\/compress\/cmp-/);
  await page.waitForSelector("dd:has-text('succeeded')");
  assert.deepEqual(hubs, [{ repo: "org/tiny", revision: "v2" }]);
});

browserTest("a recipe that is wrong is told, and what was sent is not sent again", async (browser) => {
  await using server = await FakeServer.start();
  await using console = await browser.page(server.url, { allowed: /status of 400/ });
  const { page } = console;
  await console.open("compress");
  await page.setInputFiles("#files", {
    name: "a.gguf",
    mimeType: "application/octet-stream",
    buffer: Buffer.from("GGUF"),
  });
  await page.selectOption("#recipe-method", "svd");
  await page.click("summary:has-text('All fields')");
  await page.selectOption("#recipe-pattern", "2:4");
  await page.click("button:has-text('Upload and compress')");
  await page.waitForSelector("text=Method svd has no sparse part for pattern 2:4");
  await console.checkAccessible();
});

browserTest("loads are started, watched, and compared in one chart", async (browser) => {
  await using server = await FakeServer.start({ engine: { tokenDelayMs: 2, contextLength: 8192 } });
  await using console = await browser.page(server.url);
  const { page } = console;
  await console.open("load");
  for (const users of ["1", "3"]) {
    await page.fill("#load-concurrency", users);
    await page.fill("#load-seconds", "2");
    await page.fill("#load-output_tokens", "8");
    await page.click("button:has-text('Start')");
    await page.waitForSelector(`tr:has-text("${users} users"):has-text("succeeded")`);
  }
  for (const box of await page.locator("tr input[type=checkbox]").all()) await box.check();
  const chart = page.locator("figure", { hasText: "Tokens a second" });
  await chart.locator("text=/2: fake, 1 users/").waitFor();
  await chart.locator("summary").click();
  await chart.locator("tbody td").first().waitFor();
  const rates = (await chart.locator("tbody td").allInnerTexts()).map((text) => parseFloat(text));
  assert.ok(rates.filter((rate) => rate > 0).length >= 4, String(rates));
  await console.checkAccessible();
  await console.screenshot("load-two");
});

browserTest("a job that fails says why, and is tried again", async (browser) => {
  let tries = 0;
  const run: RunTask = (task, options) => {
    if (tries++ > 0) return fakeRun(task, options);
    return Promise.reject(new OatmillError("insufficient_memory", "The machine has too little memory"));
  };
  await using server = await FakeServer.start({ run });
  await using console = await browser.page(server.url);
  const { page } = console;
  await console.open("compress");
  await page.setInputFiles("#files", { name: "a.gguf", mimeType: "", buffer: Buffer.from("GGUF") });
  await page.click("button:has-text('Upload and compress')");
  await page.waitForSelector("[role=alert] >> text=too little memory");
  await console.checkAccessible();
  await page.click("button:has-text('Try again')");
  await page.waitForSelector("dd:has-text('succeeded')");
  assert.equal(tries, 2);
  assert.equal(await page.locator("[role=alert]").count(), 0);
});
