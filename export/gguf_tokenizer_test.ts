import assert from "node:assert/strict";
import { tokenizerFromGguf } from "../models/formats/gguf_tokenizer.ts";
import type { GgufValue } from "../models/formats/gguf_value.ts";
import { byteLevelFiles } from "../models/formats/vocab_merges.ts";
import { tokenizerMetadata } from "./gguf_tokenizer.ts";

Deno.test("both chat templates come back from the metadata that they are written to", () => {
  const files = byteLevelFiles({ a: 0, b: 1, ab: 2 }, ["a b"], { chatTemplate: "plain" });
  for (const toolTemplate of ["{{ tools }}", null]) {
    const entries = tokenizerMetadata({ ...files, toolTemplate }, { rows: 3, bosId: null, eosId: null });
    const values = Object.entries(entries).map(([key, entry]) => {
      const [value] = Object.values(entry);
      return [key, "i32s" in entry ? Int32Array.from(entry.i32s) : value] as [string, GgufValue];
    });
    const read = tokenizerFromGguf(new Map(values))!;
    assert.deepEqual([read.chatTemplate, read.toolTemplate], ["plain", toolTemplate]);
  }
});
