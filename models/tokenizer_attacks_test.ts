import assert from "node:assert/strict";
import { OatmillError } from "../errors.ts";
import { readJsonFile } from "./formats/json_file.ts";
import { loadTokenizer } from "./tokenizer.ts";
import { oracleTest, shared } from "./testing/shared.ts";

/** The manifest allows 2 s; ten times as much passes on a machine that is shared. */
const MAX_MS = 20_000;

async function attempt(file: string): Promise<OatmillError | null> {
  try {
    const tokenizer = (await readJsonFile(shared(`oracles/attacks/${file}`).pathname, "invalid_tokenizer"))!;
    const loaded = loadTokenizer({ tokenizer, config: {}, chatTemplate: null });
    loaded.decode(loaded.encode("abcd aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"));
    return null;
  } catch (error) {
    if (error instanceof OatmillError) return error;
    throw error;
  }
}

oracleTest(
  "loadTokenizer() refuses or survives every hostile tokenizer.json in time",
  "oracles/attacks/tokenizer",
  async () => {
    const { files } = JSON.parse(await Deno.readTextFile(shared("oracles/attacks/MANIFEST.json")));
    for (const { file, expect, error_should_mention } of files) {
      if (!file.startsWith("tokenizer/") || !file.endsWith(".json")) continue;
      const start = performance.now();
      const error = await attempt(file);
      assert.ok(performance.now() - start < MAX_MS, `${file} took too long`);
      if (expect === "accept") assert.equal(error, null, `${file}: ${error?.message}`);
      if (expect === "refuse") assert.ok(error, `${file} was accepted`);
      if (error) {
        assert.equal(error.code, "invalid_tokenizer");
        if (error_should_mention) assert.match(error.message, new RegExp(error_should_mention, "i"), file);
      }
    }
  },
);

oracleTest(
  "loadTokenizer() takes tokens named like object properties",
  "oracles/attacks/tokenizer",
  async () => {
    const path = shared("oracles/attacks/tokenizer/vocab_proto.json").pathname;
    const tokenizer = (await readJsonFile(path, "invalid_tokenizer"))!;
    assert.deepEqual(loadTokenizer({ tokenizer, config: {}, chatTemplate: null }).encode("abcd"), [28]);
  },
);
