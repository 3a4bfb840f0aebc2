/**
 * llama.cpp as a peer: its prebuilt binaries by node-llama-cpp, run by Node in a process of its own (bench/peer/), one
 * command and one answer per line. It is not a dependency of Oatmill: `npm install --prefix bench/peer` installs it.
 */
import { fileURLToPath } from "node:url";
import { writeGguf } from "./_gguf_writer.ts";
import type { Contender } from "./contender.ts";

const FOLDER = fileURLToPath(new URL("./peer/", import.meta.url));

interface Answer {
  readonly ready?: boolean;
  readonly tokensPerSecond?: number;
  readonly error?: string;
}

/** @returns null, after telling why, when it cannot run here */
export async function startLlamaCpp(
  path: string,
  options: { threads: number; onSkip?: (message: string) => void },
): Promise<Contender | null> {
  const skip = (why: string) => {
    options.onSkip?.(`llama.cpp is left out: ${why}`);
    return null;
  };
  if (!path.endsWith(".gguf")) return skip("it reads .gguf files only");
  const installed = await Deno.stat(FOLDER + "node_modules/node-llama-cpp").then(() => true, () => false);
  if (!installed) {
    return skip(
      "install it with `npm install --prefix bench/peer --no-package-lock --ignore-scripts --omit=optional`",
    );
  }
  // What it runs natively at 8 bits, from the very weights that this model was made of.
  const q8 = await Deno.makeTempFile({ suffix: ".gguf" });
  await writeGguf(path, q8, "Q8_0");
  const child = new Deno.Command("node", {
    args: [FOLDER + "llama_cpp.mjs", q8, String(options.threads)],
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const process = new LineProcess(child);
  const close = async () => {
    await process.close();
    await Deno.remove(q8);
  };
  const { ready, error } = await process.answer();
  if (!ready) {
    await close();
    return skip(error ?? "it did not start");
  }
  const ask = async (command: string): Promise<number> => {
    const { tokensPerSecond, error } = await process.ask(command);
    if (tokensPerSecond === undefined) throw new Error(`llama.cpp failed: ${error}`);
    return tokensPerSecond;
  };
  return {
    name: "llama.cpp",
    format: "Q8_0",
    prefill: (tokens) => ask(`prefill ${tokens}`),
    decode: (tokens) => ask(`decode ${tokens}`),
    close,
  };
}

class LineProcess {
  readonly #lines: AsyncIterator<string>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  constructor(readonly child: Deno.ChildProcess) {
    this.#lines = linesOf(child.stdout)[Symbol.asyncIterator]();
    this.#writer = child.stdin.getWriter();
  }
  async answer(): Promise<Answer> {
    const { value, done } = await this.#lines.next();
    return done ? { error: "it ended" } : JSON.parse(value);
  }
  async ask(command: string): Promise<Answer> {
    await this.#writer.write(new TextEncoder().encode(command + "\n"));
    return await this.answer();
  }
  async close(): Promise<void> {
    await this.#writer.close().catch(() => {});
    await this.child.status;
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
