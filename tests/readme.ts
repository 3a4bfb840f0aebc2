/** Runs the README's shell blocks as a reader would paste them, one after the other in one shell. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { permissionsOf, ROOT } from "./server_process.ts";

const README = join(ROOT, "README.md");

/** Shell blocks in order; those that start a server, install, or run all tests are left out. */
export function readmeBlocks(markdown: string): string[] {
  const blocks = [...markdown.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map((m) => m[1]);
  return blocks.filter((b) => !/task (start|test|ok)\b|docker /.test(b));
}

/** @param url the running server, in place of the README's address */
export async function runReadme(url: string): Promise<void> {
  const out = await Deno.makeTempDir();
  try {
    const blocks = readmeBlocks(await Deno.readTextFile(README));
    assert.ok(blocks.length > 0);
    const cli = `deno run --no-prompt ${permissionsOf("oatmill").join(" ")} main.ts`;
    const script = blocks.join("\n").replaceAll("http://127.0.0.1:8000", url)
      .replaceAll("deno task oatmill", cli).replaceAll("out/", `${out}/`);
    const { code, stdout, stderr } = await new Deno.Command("bash", {
      args: ["-e", "-o", "pipefail", "-c", script],
      cwd: ROOT,
      stdin: "null",
    }).output();
    const text = new TextDecoder();
    assert.equal(code, 0, text.decode(stderr).slice(-2000));
    const printed = text.decode(stdout);
    assert.doesNotMatch(printed, /"error":\s*\{/);
    assert.match(printed, /"status":"succeeded"|"state":"succeeded"/);
  } finally {
    await Deno.remove(out, { recursive: true });
  }
}
