import assert from "node:assert/strict";
import { openCheckpoint } from "../open.ts";
import { oracleTest, shared } from "../testing/shared.ts";
import { loadTokenizer, type Tokenizer } from "../tokenizer.ts";
import { GgufFile } from "./gguf.ts";
import { tokenizerFromGguf } from "./gguf_tokenizer.ts";

async function load(path: string): Promise<Tokenizer> {
  using file = await GgufFile.open(shared(path).pathname);
  return loadTokenizer(tokenizerFromGguf(file.metadata)!);
}

interface Case {
  readonly text: string;
  readonly ids: number[];
  readonly decoded: string;
}

/** Control tokens in text are matched here, as in tokenizer.json; SentencePiece itself takes them as plain text. */
const SPECIAL_TEXT = "<s>not special</s>";

for (
  const [name, file] of [["tiny_llama_*.gguf", "tiny_llama_f32.gguf"], [
    "tiny_qwen2_f16.gguf",
    "tiny_qwen2_f16.gguf",
  ]]
) {
  oracleTest(`the vocabulary of ${file} encodes as recorded`, "oracles/gguf", async () => {
    const recorded = JSON.parse(await Deno.readTextFile(shared("oracles/gguf/tokenizers.json")));
    const tokenizer = await load(`oracles/gguf/${file}`);
    for (const { text, ids, decoded } of recorded[name].encode as Case[]) {
      if (text === SPECIAL_TEXT && name.includes("llama")) continue;
      assert.deepEqual(tokenizer.encode(text, { addSpecialTokens: false }), ids, JSON.stringify(text));
      assert.equal(tokenizer.decode(ids, { skipSpecialTokens: true }), decoded);
    }
  });
}

// llama.cpp's own test vectors: texts between separator lines, one line of ids for each.
for (const name of ["llama-spm", "gpt-2", "phi-3"]) {
  oracleTest(
    `the vocabulary of llama.cpp's ${name} encodes its test vectors`,
    "data/tokenizers/llamacpp-vocab",
    async () => {
      const base = `data/tokenizers/llamacpp-vocab/ggml-vocab-${name}.gguf`;
      const texts = (await Deno.readTextFile(shared(`${base}.inp`))).split("\n__ggml_vocab_test__\n");
      const lines = (await Deno.readTextFile(shared(`${base}.out`))).split("\n");
      const tokenizer = await load(base);
      const wrong = texts.filter((text, i) => {
        const ids = lines[i].trim().split(/\s+/).filter(Boolean).map(Number);
        return JSON.stringify(tokenizer.encode(text, { addSpecialTokens: false })) !== JSON.stringify(ids);
      });
      assert.deepEqual(wrong, []);
    },
  );
}

oracleTest("SmolLM2's vocabulary and template give the recorded ids", "models", async () => {
  const { prompts } = JSON.parse(await Deno.readTextFile(shared("models/expected.json")));
  const checkpoint = await openCheckpoint(shared("models/SmolLM2-135M-Instruct.Q4_1.gguf").pathname);
  checkpoint.close();
  const tokenizer = loadTokenizer(checkpoint.tokenizerFiles!);
  assert.ok(tokenizer.hasChatTemplate);
  assert.deepEqual(tokenizer.eosIds, [2]);
  for (const { text, ids, greedy48_ids, greedy48_text } of prompts) {
    assert.deepEqual(tokenizer.encode(text), ids);
    if (greedy48_text) assert.equal(tokenizer.decode(greedy48_ids), greedy48_text);
  }
});
