import assert from "node:assert/strict";
import { readTokenizerFiles } from "./tokenizer_files.ts";
import { loadTokenizer, type Tokenizer } from "./tokenizer.ts";
import { byteLevelFiles } from "./formats/vocab_merges.ts";
import { oracleTest, shared } from "./testing/shared.ts";

interface Encoded {
  readonly ids: number[];
  readonly ids_special?: number[];
  readonly decoded: string | true;
  readonly decoded_skip?: string | true;
}
interface Vocabulary {
  readonly vocab_size_with_added: number;
  readonly encode: Record<string, Encoded>;
  readonly incremental: { name: string; ids: number[]; chunks: (string | null)[] }[];
  readonly decode_single_ids: { id: number; token: string; decoded: string }[];
}

async function load(name: string): Promise<Tokenizer> {
  const folder = shared(`data/tokenizers/${name}`);
  if (name !== "gpt2") return loadTokenizer((await readTokenizerFiles(folder.pathname))!);
  const vocab = JSON.parse(await Deno.readTextFile(new URL("gpt2/vocab.json", shared("data/tokenizers/"))));
  const merges = await Deno.readTextFile(new URL("gpt2/merges.txt", shared("data/tokenizers/")));
  return loadTokenizer(byteLevelFiles(vocab, merges));
}

for (const name of ["llama2", "llama3", "qwen3", "gpt2"]) {
  oracleTest(`tokenizer ${name} encodes and decodes as recorded`, "data/tokenizers", async () => {
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
    for (const { name, ids, chunks } of expected.incremental) {
      const stream = tokenizer.stream();
      const pieces = ids.map((id) => stream.push(id));
      assert.equal(pieces.join("") + stream.end(), tokenizer.decode(ids), `stream of ${name}`);
      assert.deepEqual(pieces.map((piece) => piece || null), chunks, `chunks of ${name}`);
    }
  });
}
