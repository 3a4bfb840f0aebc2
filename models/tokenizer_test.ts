import assert from "node:assert/strict";
import { readTokenizerFiles, writeTokenizerFiles } from "./tokenizer_files.ts";
import { loadTokenizer, type Tokenizer } from "./tokenizer.ts";
import { oracleTest, shared } from "./testing/shared.ts";

interface Encoded {
  readonly ids: number[];
  readonly ids_special?: number[];
  readonly decoded: string | true;
  readonly decoded_skip?: string | true;
}
interface Incremental {
  readonly name: string;
  readonly ids: number[];
  readonly prompt_ids?: number[];
  readonly skip_special_tokens?: boolean;
  readonly chunks: (string | null)[];
}
interface Vocabulary {
  readonly vocab_size_with_added: number;
  readonly encode: Record<string, Encoded>;
  readonly incremental: readonly Incremental[];
  readonly decode_single_ids: { id: number; token: string; decoded: string }[];
}

async function load(name: string): Promise<Tokenizer> {
  return loadTokenizer((await readTokenizerFiles(shared(`data/tokenizers/${name}`).pathname))!);
}

for (const name of ["llama2", "llama3", "qwen3", "gpt2"]) {
  oracleTest(`tokenizer ${name} encodes and decodes as recorded`, "oracles/tokenizers", async () => {
    const all = JSON.parse(await Deno.readTextFile(shared("oracles/tokenizers/expected.json")));
    const strings: Record<string, string> = all.strings;
    const expected: Vocabulary = all[name];
    const tokenizer = await load(name);
    assert.equal(tokenizer.vocabSize, expected.vocab_size_with_added);
    for (const [key, want] of Object.entries(expected.encode)) {
      const text = strings[key];
      assert.deepEqual(tokenizer.encode(text, { addSpecialTokens: false }), want.ids, `ids of ${key}`);
      assert.deepEqual(tokenizer.encode(text), want.ids_special ?? want.ids, `ids with specials of ${key}`);
      const decoded = want.decoded === true ? text : want.decoded;
      assert.equal(tokenizer.decode(want.ids), decoded, `text of ${key}`);
      const skipped = want.decoded_skip === true ? text : want.decoded_skip ?? decoded;
      assert.equal(
        tokenizer.decode(want.ids, { skipSpecialTokens: true }),
        skipped,
        `text without specials of ${key}`,
      );
    }
    for (const { id, token, decoded } of expected.decode_single_ids) {
      assert.equal(tokenizer.tokenText(id), token);
      assert.equal(tokenizer.decode([id]), decoded, `text of token ${id}`);
    }
    for (const { name, ids, chunks, prompt_ids: after = [], skip_special_tokens } of expected.incremental) {
      const options = { skipSpecialTokens: skip_special_tokens, after };
      const stream = tokenizer.stream(options);
      const pieces = ids.map((id) => stream.push(id));
      const all = tokenizer.decode(after, options) + pieces.join("") + stream.end();
      assert.equal(all, tokenizer.decode([...after, ...ids], options), `stream of ${name}`);
      // Chunks may be cut elsewhere (ours come earlier), but end with the same text and hold whole characters only.
      const whole = chunks.filter((chunk) => chunk !== null).join("");
      assert.equal(pieces.join(""), whole, `chunks of ${name}`);
      assert.ok(pieces.every((piece) => piece.isWellFormed()));
    }
  });
}

oracleTest("a bundle of tokenizer files survives writing and reading", "data/tokenizers", async () => {
  const files = (await readTokenizerFiles(shared("data/tokenizers/llama3").pathname))!;
  const folder = await Deno.makeTempDir();
  await writeTokenizerFiles(folder, files);
  const { chat_template, ...config } = files.config;
  assert.equal(chat_template, files.chatTemplate);
  assert.deepEqual(await readTokenizerFiles(folder), { ...files, config });
  await Deno.remove(folder, { recursive: true });
});
