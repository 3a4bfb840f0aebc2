/**
 * wllama (llama.cpp in WASM) in headless Chromium, run by Node for `bench engine --peer`. Arguments: model file, threads,
 * streams, tokens in the KV cache, Chromium. The page comes from a server on loopback, with the headers that give it shared
 * memory and so threads; it asks that server for commands and posts answers, so that nothing has to drive the browser.
 */
import { spawn } from "node:child_process";
import { createReadStream } from "node:fs";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { serveCommands } from "./lines.mjs";
import { DECODE_PROMPT, wordPrompt } from "./prompts.mjs";

const [path, threads, streams, kvTokens, chromium] = process.argv.slice(2);
/** Nothing but loopback is asked for; the profile is new and goes with the run. */
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const file = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const FILES = {
  "/": { path: file("./wllama.html"), type: "text/html" },
  "/wllama.js": { path: file("./node_modules/@wllama/wllama/esm/index.js"), type: "text/javascript" },
  "/wllama.wasm": { path: file("./node_modules/@wllama/wllama/esm/wasm/wllama.wasm"), type: "application/wasm" },
  "/model.gguf": { path, type: "application/octet-stream" },
};
const ISOLATED = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

/** A hand-over of one value at a time from a giver to a taker, whoever comes first. */
class Mailbox {
  #values = [];
  #takers = [];
  give(value) {
    const taker = this.#takers.shift();
    if (taker) taker(value);
    else this.#values.push(value);
  }
  take() {
    return this.#values.length > 0 ? this.#values.shift() : new Promise((resolve) => this.#takers.push(resolve));
  }
}

const commands = new Mailbox(), answers = new Mailbox();
const ROUTES = {
  async "GET /command"(_, response) {
    response.end(JSON.stringify(await commands.take()));
  },
  async "POST /answer"(request, response) {
    const parts = [];
    for await (const part of request) parts.push(part);
    answers.give(JSON.parse(Buffer.concat(parts).toString()));
    response.end();
  },
};

async function serve() {
  const server = createServer(async (request, response) => {
    for (const [name, value] of Object.entries(ISOLATED)) response.setHeader(name, value);
    const route = ROUTES[`${request.method} ${request.url}`];
    if (route) return await route(request, response);
    const served = FILES[request.url];
    if (!served) return response.writeHead(404).end();
    const { size } = await stat(served.path);
    response.writeHead(200, { "Content-Type": served.type, "Content-Length": size });
    createReadStream(served.path).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${server.address().port}/`;
}

/** What the page answers; @throws what it failed of */
async function ask(command) {
  commands.give(command);
  const { error, value } = await answers.take();
  if (error !== undefined) throw new Error(error);
  return value;
}

await serveCommands(async () => {
  const address = await serve();
  const profile = await mkdtemp(join(tmpdir(), "oatmill-chromium-"));
  const browser = spawn(chromium, [...FLAGS, `--user-data-dir=${profile}`, address], { stdio: "ignore" });
  const ended = new Promise((resolve) => browser.once("exit", resolve).once("error", resolve));
  ended.then(() => answers.give({ error: "Chromium ended" }));
  const close = async () => {
    browser.kill();
    await ended;
    await rm(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  };
  try {
    await ask({ load: { threads: Number(threads), streams: Number(streams), kvTokens: Number(kvTokens) } });
    const generate = (prompts, tokens) => ask({ generate: { prompts, tokens } });
    // Tokens that stand before a text, as in <s>: to be left out of what is asked for.
    const { results: [probe] } = await generate([wordPrompt(DECODE_PROMPT)], 1);
    const before = probe.promptTokens - DECODE_PROMPT;
    /** @returns for each of `count` prompts of `length` tokens its timings, and the wall time of all */
    const measure = async (count, length, tokens) => {
      const measured = await generate(Array.from({ length: count }, () => wordPrompt(length - before)), tokens);
      for (const { promptTokens, produced } of measured.results) {
        if (promptTokens === length && produced === tokens) continue;
        throw new Error(`it took ${promptTokens} of ${length} prompt tokens and made ${produced} of ${tokens}`);
      }
      return measured;
    };
    return {
      async prefill(tokens) {
        const { results: [{ promptMs }] } = await measure(1, tokens, 1);
        return tokens * 1000 / promptMs;
      },
      async decode(tokens) {
        const { results: [{ produced, decodeMs }] } = await measure(1, DECODE_PROMPT, tokens);
        return (produced - 1) * 1000 / decodeMs;
      },
      async streams(count, tokens) {
        const { wallMs } = await measure(count, DECODE_PROMPT, tokens);
        return count * tokens * 1000 / wallMs;
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
});
