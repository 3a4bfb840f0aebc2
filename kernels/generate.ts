/**
 * Builds `gen/*.wasm` from manifest.ts and `templates/`. `deno task kernels` writes; `deno task kernels:check` builds
 * into a temporary folder and names what differs.
 */

import asc from "assemblyscript/asc";
import { kernelNames, type ModuleEntry, MODULES } from "./manifest.ts";
import { attentionSource } from "./templates/attention.ts";
import { linearSource } from "./templates/linear.ts";
import { peakSource } from "./templates/peak.ts";

const COMPILER = "assemblyscript@0.28.20";
const COMMAND = "deno task kernels";
const NOTE = "Auto-generated file. Do not edit!";
/**
 * Flags of asc; the memory is shared and imported, so a module must not bring data of its own. Not -O3: Binaryen then
 * nests each token's whole chain of products, and V8 spills every decoded weight and index vector in between
 * (-15 % at 4 tokens, -17 to -21 % at 8; w8q4 and w8q8, 2048 x 2048).
 */
const FLAGS = [
  ..."--runtime stub --importMemory --noExportMemory --sharedMemory --initialMemory 1 --maximumMemory 65536"
    .split(" "),
  ..."--enable simd,relaxed-simd,threads -O2 --noAssert --disableWarning 201".split(" "),
];
const GEN = new URL("./gen/", import.meta.url);

/** What a sidecar tells about its module. */
interface Sidecar {
  readonly note: string;
  readonly module: string;
  readonly templates: readonly string[];
  readonly command: string;
  readonly compiler: string;
  readonly flags: string;
  readonly sourceSha256: string;
  readonly kernels: readonly string[];
}

/** Parts of plain modules that are functions; the others are text. */
const SOURCES: Readonly<Record<string, () => string>> = {
  "peak.ts": peakSource,
};

function templateNames(entry: ModuleEntry): readonly string[] {
  if (entry.kind === "plain") return entry.parts;
  return entry.kind === "linear" ? ["linear.ts"] : ["math.as.ts", "attention.ts"];
}

const templateText = async (part: string): Promise<string> =>
  SOURCES[part]?.() ?? await Deno.readTextFile(new URL(`./templates/${part}`, import.meta.url));

/** AssemblyScript source of a module. */
async function moduleSource(entry: ModuleEntry): Promise<string> {
  if (entry.kind === "linear") return linearSource(entry.format, entry.accumulate);
  if (entry.kind === "attention") return await templateText("math.as.ts") + attentionSource(entry.format);
  return (await Promise.all(entry.parts.map(templateText))).join("\n");
}

/** Compiles AssemblyScript text; throws with the compiler's message. */
async function compile(name: string, source: string): Promise<Uint8Array> {
  const files = new Map<string, string | Uint8Array>([[`${name}.ts`, source]]);
  const { error, stderr } = await asc.main([`${name}.ts`, "-o", `${name}.wasm`, ...FLAGS], {
    readFile: (file) => files.get(file) as string ?? null,
    writeFile: (file, contents) => void files.set(file, contents),
    listFiles: () => [],
  });
  if (error) throw new Error(`Cannot compile module "${name}": ${stderr.toString()}`, { cause: error });
  return files.get(`${name}.wasm`) as Uint8Array;
}

/** A module may import the memory and nothing else, and hold no data segment (section 11): it would overwrite weights. */
function assertPlainModule(name: string, bytes: Uint8Array): void {
  const imports = WebAssembly.Module.imports(new WebAssembly.Module(bytes.slice()));
  if (imports.length !== 1 || imports[0].name !== "memory") {
    throw new Error(`Module "${name}" imports ${JSON.stringify(imports)}, must import only the memory`);
  }
  for (let at = 8; at < bytes.length;) {
    const id = bytes[at++];
    let size = 0;
    for (let shift = 0;; shift += 7) {
      const byte = bytes[at++];
      size |= (byte & 127) << shift;
      if (byte < 128) break;
    }
    if (id === 11) throw new Error(`Module "${name}" has a data segment, must have none`);
    at += size;
  }
}

async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return new Uint8Array(digest).toHex();
}

/** Files of a module by name. */
async function build(entry: ModuleEntry): Promise<Map<string, Uint8Array>> {
  const source = await moduleSource(entry);
  const wasm = await compile(entry.file, source);
  assertPlainModule(entry.file, wasm);
  const sidecar: Sidecar = {
    note: NOTE,
    module: entry.file,
    templates: templateNames(entry).map((name) => `kernels/templates/${name}`),
    command: COMMAND,
    compiler: COMPILER,
    flags: FLAGS.join(" "),
    sourceSha256: await sha256(source),
    kernels: kernelNames(entry),
  };
  const json = new TextEncoder().encode(JSON.stringify(sidecar, null, 1).replace("{\n ", "{") + "\n");
  return new Map([[`${entry.file}.wasm`, wasm], [`${entry.file}.json`, json]]);
}

async function readOrEmpty(url: URL): Promise<Uint8Array> {
  try {
    return await Deno.readFile(url);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return new Uint8Array(0);
    throw error;
  }
}

const equal = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((v, i) => v === b[i]);

/** Writes every module into `folder` and drops what no entry names. */
async function generate(folder: URL, only: readonly string[]): Promise<Set<string>> {
  const written = new Set<string>();
  for (const entry of MODULES) {
    if (only.length && !only.includes(entry.file)) continue;
    for (const [name, bytes] of await build(entry)) {
      await Deno.writeFile(new URL(name, folder), bytes);
      written.add(name);
    }
  }
  return written;
}

const filesOf = (folder: URL): string[] => [...Deno.readDirSync(folder)].map((entry) => entry.name);

async function check(): Promise<number> {
  const folder = new URL(`file://${await Deno.makeTempDir()}/`);
  try {
    const built = await generate(folder, []);
    const differing: string[] = [];
    for (const name of new Set([...built, ...filesOf(GEN)])) {
      if (!equal(await readOrEmpty(new URL(name, GEN)), await readOrEmpty(new URL(name, folder)))) {
        differing.push(name);
      }
    }
    for (const name of differing.sort()) console.error(`kernels/gen/${name} differs from its template`);
    if (differing.length) console.error(`Run: ${COMMAND}`);
    return differing.length ? 1 : 0;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

if (import.meta.main) {
  if (Deno.args.includes("--check")) Deno.exit(await check());
  await Deno.mkdir(GEN, { recursive: true });
  const written = await generate(GEN, Deno.args);
  if (Deno.args.length === 0) {
    for (const name of filesOf(GEN)) if (!written.has(name)) await Deno.remove(new URL(name, GEN));
  }
}
