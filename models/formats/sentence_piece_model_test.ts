import assert from "node:assert/strict";
import fc from "fast-check";
import { OatmillError } from "../../errors.ts";
import { oracleTest, shared } from "../testing/shared.ts";
import { loadTokenizer } from "../tokenizer.ts";
import { GgufFile } from "./gguf.ts";
import { tokenizerFromSentencePiece } from "./sentence_piece_model.ts";

/** One length-delimited field of a protocol buffer. */
function field(number: number, content: Uint8Array): number[] {
  const varint: number[] = [];
  for (let n = content.length; varint.length === 0 || n > 0; n >>>= 7) {
    varint.push(n > 127 ? (n & 127) | 128 : n);
  }
  return [number << 3 | 2, ...varint, ...content];
}

function pieceField(text: string, score: number, type: number): number[] {
  const bytes = [
    ...field(1, new TextEncoder().encode(text)),
    0x15,
    ...new Uint8Array(new Float32Array([score]).buffer),
    0x18,
    type,
  ];
  return field(1, Uint8Array.from(bytes));
}

/** BPE, and a normalizer that keeps repeated spaces. */
const BPE_SPECS = [...field(2, Uint8Array.of(0x18, 2)), ...field(3, Uint8Array.of(0x20, 0))];

oracleTest(
  "tokenizer.model gives the tokens of the same vocabulary in GGUF",
  "data/tokenizers/llamacpp-vocab",
  async () => {
    const base = "data/tokenizers/llamacpp-vocab/ggml-vocab-llama-spm.gguf";
    using file = await GgufFile.open(shared(base).pathname);
    const get = (name: string) => file.metadata.get(`tokenizer.ggml.${name}`);
    const tokens = get("tokens") as string[],
      scores = get("scores") as Float32Array,
      types = get("token_type") as Int32Array;
    const model = Uint8Array.from([
      ...tokens.flatMap((text, id) => pieceField(text, scores[id], types[id])),
      ...BPE_SPECS,
    ]);
    const tokenizer = loadTokenizer(tokenizerFromSentencePiece(model, {}, null));
    const texts = (await Deno.readTextFile(shared(`${base}.inp`))).split("\n__ggml_vocab_test__\n");
    const lines = (await Deno.readTextFile(shared(`${base}.out`))).split("\n");
    texts.forEach((text, i) => {
      const ids = lines[i].trim().split(/\s+/).filter(Boolean).map(Number);
      assert.deepEqual(tokenizer.encode(text), [1, ...ids], JSON.stringify(text));
    });
    assert.deepEqual(tokenizer.eosIds, [2]);
  },
);

Deno.test("tokens that only tokenizer_config.json names are added", () => {
  const model = Uint8Array.from([...pieceField("<unk>", 0, 2), ...pieceField("a", -1, 1), ...BPE_SPECS]);
  const config = {
    added_tokens_decoder: { 2: { content: "<|end|>", special: true }, 0: { content: "<unk>" } },
    add_bos_token: false,
  };
  const tokenizer = loadTokenizer(tokenizerFromSentencePiece(model, config, null));
  assert.deepEqual(tokenizer.encode("<|end|>"), [2]);
});

oracleTest("hostile tokenizer.model files are refused", "oracles/attacks/tokenizer", async () => {
  for (const name of ["spm_garbage.model", "spm_varint_overflow.model"]) {
    const bytes = await Deno.readFile(shared(`oracles/attacks/tokenizer/${name}`));
    assert.throws(() => tokenizerFromSentencePiece(bytes, {}, null), {
      code: "invalid_tokenizer",
      message: /sentencepiece/,
    });
  }
});

Deno.test("any bytes end in an OatmillError or a vocabulary", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
    try {
      tokenizerFromSentencePiece(bytes, {}, null);
    } catch (error) {
      assert.ok(error instanceof OatmillError, String(error));
    }
  }));
});
