/**
 * A peer in a process of its own, run by Node (bench/peer/): one command and one answer per line. No peer is a dependency
 * of Oatmill: `npm install --prefix bench/peer` installs them.
 */
import { fileURLToPath } from "node:url";
import { PeerUnavailable } from "./_peer_context.ts";
import type { Contender } from "./contender.ts";

const FOLDER = fileURLToPath(new URL("./peer/", import.meta.url));
const INSTALL = "npm install --prefix bench/peer --no-package-lock --ignore-scripts --omit=optional";

interface Answer {
  readonly ready?: boolean;
  readonly tokensPerSecond?: number;
  readonly error?: string;
}

export interface PeerProgram {
  readonly name: string;
  readonly format: string;
  /** In bench/peer/. */
  readonly script: string;
  readonly args: readonly (string | number)[];
}

/** @throws {PeerUnavailable} when `name` of npm is not installed in bench/peer/ */
export async function requirePackage(name: string): Promise<void> {
  const installed = await Deno.stat(`${FOLDER}node_modules/${name}`).then(() => true, () => false);
  if (!installed) throw new PeerUnavailable(`install it with \`${INSTALL}\``);
}

/** @throws {PeerUnavailable} when the program does not start, with what it says */
export async function startPeer({ name, format, script, args }: PeerProgram): Promise<Contender> {
  const process = new LineProcess(FOLDER + script, args.map(String));
  const { ready, error } = await process.answer();
  if (!ready) {
    await process.close();
    throw new PeerUnavailable(error ?? "it did not start");
  }
  const ask = async (command: string): Promise<number> => {
    const { tokensPerSecond, error } = await process.ask(command);
    if (tokensPerSecond === undefined) throw new Error(`${name} failed: ${error}`);
    return tokensPerSecond;
  };
  return {
    name,
    format,
    prefill: (tokens) => ask(`prefill ${tokens}`),
    decode: (tokens) => ask(`decode ${tokens}`),
    streams: (count, tokens) => ask(`streams ${count} ${tokens}`),
    close: () => process.close(),
  };
}

/** Of what a process writes to its stderr: enough for an error and its stack. */
const KEPT_CHARS = 4000;

class LineProcess {
  readonly #child: Deno.ChildProcess;
  readonly #errors: Promise<string>;
  readonly #lines: AsyncIterator<string>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  constructor(script: string, args: string[]) {
    this.#child = spawnNode(script, args);
    this.#lines = linesOf(this.#child.stdout)[Symbol.asyncIterator]();
    this.#writer = this.#child.stdin.getWriter();
    this.#errors = tailOf(this.#child.stderr);
  }
  async answer(): Promise<Answer> {
    const { value, done } = await this.#lines.next();
    return done ? { error: await this.#lastWords() } : JSON.parse(value);
  }
  async #lastWords(): Promise<string> {
    const { code, signal } = await this.#child.status;
    const lines = (await this.#errors).split("\n").filter(Boolean);
    const why = lines.find((line) => /^\w*Error\b/.test(line)) ?? lines.at(-1);
    return `it ended with ${signal ?? `code ${code}`}${why === undefined ? "" : `: ${why}`}`;
  }
  async ask(command: string): Promise<Answer> {
    // Where it has ended, the answer says so.
    await this.#writer.write(new TextEncoder().encode(command + "\n")).catch(() => {});
    return await this.answer();
  }
  async close(): Promise<void> {
    await this.#writer.close().catch(() => {});
    await this.#child.status;
  }
}

/** @throws {PeerUnavailable} when there is no Node */
function spawnNode(script: string, args: string[]): Deno.ChildProcess {
  const command = new Deno.Command("node", {
    args: [script, ...args],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  });
  try {
    return command.spawn();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) throw new PeerUnavailable("Node is not installed");
    throw error;
  }
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string, void, void> {
  let rest = "";
  for await (
    const chunk of stream.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>)
  ) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop()!;
    yield* lines.filter(Boolean);
  }
}

async function tailOf(stream: ReadableStream<Uint8Array>): Promise<string> {
  let tail = "";
  const decoder = new TextDecoder();
  for await (const chunk of stream) {
    tail = (tail + decoder.decode(chunk, { stream: true })).slice(-KEPT_CHARS);
  }
  return tail;
}
