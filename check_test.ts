/** Types, once for all files and beside the tests that run: `deno task test` itself checks none. */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";

Deno.test("every file and every example in a comment has right types", async () => {
  const cwd = fileURLToPath(new URL(".", import.meta.url));
  const command = new Deno.Command(Deno.execPath(), {
    cwd,
    args: ["check", "--doc"],
    env: { NO_COLOR: "1" },
  });
  const { code, stderr } = await command.output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
});
