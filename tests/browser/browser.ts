/** Chromium and its pages for tests of the console. Tests only. */
import assert from "node:assert/strict";
import axe, { type AxeResults } from "axe-core";
import type { Browser, Page } from "playwright-core";

const PLACES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
/** Nothing of the machine's own browser, and nothing that asks other hosts. */
const FLAGS = [
  ..."--headless --no-sandbox --disable-gpu --disable-quic --no-first-run".split(" "),
  ..."--disable-background-networking --disable-component-update --disable-sync".split(" "),
];
const SCREENSHOTS = new URL("./screenshots/", import.meta.url);
/** As long as a busy machine needs. */
const DEADLINE_MS = 20_000;

/** Null where there is none. */
export const chromiumPath: string | null = PLACES.find((path) => {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}) ?? null;

export interface PageOptions {
  readonly width?: number;
  readonly dark?: boolean;
  /** What the page may complain of: refused requests are errors in a browser's console. */
  readonly allowed?: RegExp;
}

/** A page of the console, and what the browser complained of. */
export class ConsolePage implements AsyncDisposable {
  readonly complaints: string[] = [];
  #over = false;
  constructor(readonly page: Page, readonly url: string, { allowed = /(?!)/ }: PageOptions) {
    page.setDefaultTimeout(DEADLINE_MS);
    const see = (text: string) => {
      if (!allowed.test(text) && !this.#over) this.complaints.push(text);
    };
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") see(message.text());
    });
    page.on("pageerror", (error) => see(error.stack ?? error.message));
    page.on("request", (request) => {
      const { origin, protocol } = new URL(request.url());
      if (origin !== url && protocol !== "blob:") see(`A request to ${request.url()}`);
    });
  }
  /** @param path behind the # */
  async open(path: string): Promise<void> {
    await this.page.goto(`${this.url}/#/${path}`);
  }
  /** axe-core's serious and critical faults, by rule and element; there must be none. */
  async checkAccessible(): Promise<void> {
    await this.page.evaluate(axe.source);
    // deno-lint-ignore no-explicit-any -- axe runs in the page
    const result: AxeResults = await this.page.evaluate(() => (globalThis as any).axe.run());
    const faults = result.violations.filter(({ impact }) => impact === "serious" || impact === "critical")
      .map(({ id, nodes }) => [id, ...nodes.map(({ html }) => html)]);
    assert.deepEqual(faults, []);
  }
  /** Nothing is cut off or needs scrolling sideways. */
  async checkWidth(): Promise<void> {
    const [inner, outer] = await this.page.evaluate(() => [
      document.documentElement.scrollWidth,
      document.documentElement.clientWidth,
    ]);
    assert.ok(inner <= outer, `The page is ${inner} pixels wide, the window ${outer}`);
  }
  async screenshot(name: string): Promise<void> {
    await Deno.mkdir(SCREENSHOTS, { recursive: true });
    const path = decodeURIComponent(new URL(`${name}.png`, SCREENSHOTS).pathname);
    await this.page.screenshot({ path, fullPage: true });
  }
  /** Before the server goes, which a page may be asking at that moment. Leaves a picture: what a failed test saw last. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#over = true;
    await this.screenshot(`last-${++pagesSeen}`);
    await this.page.context().close();
  }
}
let pagesSeen = 0;

/** With a profile of its own, which goes with it. */
export class TestBrowser implements AsyncDisposable {
  readonly #pages: ConsolePage[] = [];
  private constructor(readonly browser: Browser) {}
  /** All tests of a file share one process, each with pages of its own: 13 starts took 15 of 63 s. */
  static async start(): Promise<TestBrowser> {
    return new TestBrowser(await (shared ??= launch()));
  }
  /** @param url of the server */
  async page(url: string, options: PageOptions = {}): Promise<ConsolePage> {
    const { width = 1280, dark = false } = options;
    const context = await this.browser.newContext({
      viewport: { width, height: 800 },
      colorScheme: dark ? "dark" : "light",
      reducedMotion: "reduce",
    });
    const page = new ConsolePage(await context.newPage(), url, options);
    this.#pages.push(page);
    return page;
  }
  /** What the pages' consoles were told. */
  get complaints(): string[] {
    return this.#pages.flatMap(({ complaints }) => complaints);
  }
  async [Symbol.asyncDispose](): Promise<void> {
    for (const { page } of this.#pages) await page.context().close();
  }
}

let shared: Promise<Browser> | null = null;
async function launch(): Promise<Browser> {
  // Otherwise it looks at once for a Windows around it, in files that Deno opens to nobody with listed permissions.
  Deno.env.set("__IS_WSL_TEST__", "1");
  const { chromium } = await import("playwright-core");
  return await chromium.launch({ executablePath: chromiumPath!, args: FLAGS });
}
Deno.test.afterAll(async () => {
  await (await shared)?.close();
  shared = null;
});

/** A test in a browser; without one it is ignored, and says why. */
export function browserTest(name: string, run: (browser: TestBrowser) => Promise<void>): void {
  Deno.test({
    name: chromiumPath ? name : `${name} (ignored: no Chromium in /usr/bin; apt-get install chromium)`,
    ignore: chromiumPath === null,
    // playwright-core keeps timers and pipes of its own until the browser's process is gone.
    sanitizeOps: false,
    sanitizeResources: false,
    fn: async () => {
      await using browser = await TestBrowser.start();
      await run(browser);
      assert.deepEqual(browser.complaints, []);
    },
  });
}
