import assert from "node:assert/strict";
import { createMemory } from "../kernels/load.ts";
import { adviseHugePages } from "./huge_pages.ts";

const MEBIBYTE = 1 << 20;

Deno.test("adviseHugePages() leaves a memory usable, whether or not the advice was taken", () => {
  const memory = createMemory(8 * MEBIBYTE);
  const taken = adviseHugePages(memory, 7 * MEBIBYTE);
  assert.equal(typeof taken, "boolean");
  const bytes = new Uint8Array(memory.buffer);
  assert.ok(bytes.every((b) => b === 0));
  bytes.fill(7);
  assert.ok(bytes.every((b) => b === 7));
});

Deno.test("adviseHugePages() asks for nothing that is smaller than a huge page", () => {
  assert.equal(adviseHugePages(createMemory(8 * MEBIBYTE), 1 * MEBIBYTE), false);
});

Deno.test("adviseHugePages() says no without the permission, and does not prompt", async () => {
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  const module = new URL("./huge_pages.ts", import.meta.url).href;
  await Deno.writeTextFile(
    file,
    `import { adviseHugePages } from ${JSON.stringify(module)};
    const memory = new WebAssembly.Memory({ initial: 128, maximum: 128, shared: true });
    console.log(adviseHugePages(memory, 8 << 20));`,
  );
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-config", "--no-check", "--allow-read", file],
    stdout: "piped",
  }).output();
  await Deno.remove(file);
  assert.equal(new TextDecoder().decode(stdout), "false\n");
});
