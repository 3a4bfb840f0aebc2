import assert from "node:assert/strict";
import { unixLines } from "./lines.ts";

Deno.test("unixLines() turns Windows line ends into newlines and keeps everything else", () => {
  assert.equal(unixLines("a\r\n\r\nb\rc\n"), "a\n\nb\rc\n");
});
