/**
 * Makes `gen/` from `page/`: TypeScript, preact and uPlot become one script, so that the browser loads two small files
 * and nobody who runs a server builds anything. `deno task console` writes; `deno task console:check` says what differs.
 */
import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";
import project from "../../deno.json" with { type: "json" };

const PAGE = new URL("./page/", import.meta.url);
const GEN = new URL("./gen/", import.meta.url);
const COMMAND = "deno task console";
const STYLES = [
  new URL("../../node_modules/uplot/dist/uPlot.min.css", import.meta.url),
  new URL("console.css", PAGE),
];

/** SHA-256 of all that the generated files are made of: a test compares it without bundling. */
export async function sourceHash(): Promise<string> {
  const names = [...Deno.readDirSync(PAGE)].map(({ name }) => name).filter((n) =>
    /(?<!_test)\.(tsx?|css)$/.test(n)
  )
    .sort();
  const hash = createHash("sha256");
  const { preact, uplot } = project.imports;
  for (const part of [Deno.version.deno, preact, uplot]) hash.update(`${part}\n`);
  for (const name of names) hash.update(`${name}\n`).update(await Deno.readFile(new URL(name, PAGE)));
  return hash.digest("hex");
}

const note = (hash: string) =>
  `/* Auto-generated file. Do not edit! ${COMMAND} makes it from page/ (${hash}). */\n`;

/** `deno bundle` (esbuild inside): no tool beside Deno, whose version is pinned. */
async function script(): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "bundle",
      "--quiet",
      "--platform",
      "browser",
      "--minify",
      fileURLToPath(new URL("main.tsx", PAGE)),
    ],
  }).output();
  if (!success) throw new Error(`Cannot bundle the console: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout);
}

async function generate(): Promise<Map<string, string>> {
  const head = note(await sourceHash());
  const styles = await Promise.all(STYLES.map((file) => Deno.readTextFile(file)));
  return new Map([["console.js", head + await script()], ["console.css", head + styles.join("\n")]]);
}

async function differs(name: string, text: string): Promise<boolean> {
  return await Deno.readTextFile(new URL(name, GEN)).catch(() => "") !== text;
}

if (import.meta.main) {
  const files = await generate();
  const check = Deno.args.includes("--check");
  const stale: string[] = [];
  for (const [name, text] of files) {
    if (!await differs(name, text)) continue;
    if (check) stale.push(name);
    else await Deno.writeTextFile(new URL(name, GEN), text);
  }
  if (stale.length > 0) {
    console.error(`Not made from the present sources: ${stale.join(", ")}. Run "${COMMAND}"`);
    Deno.exit(1);
  }
}
