import assert from "node:assert/strict";
import fc from "fast-check";
import { type Assembler, type TokenDecoder, tokenDecoder } from "./token_decoder.ts";

const LLAMA = {
  type: "Sequence",
  decoders: [
    { type: "Replace", pattern: { String: "▁" }, content: " " },
    { type: "ByteFallback" },
    { type: "Fuse" },
    { type: "Strip", content: " ", start: 1, stop: 0 },
  ],
};

function decode(decoder: TokenDecoder, tokens: readonly string[]): string {
  const assembler: Assembler = decoder.assembler();
  return tokens.map((token) => assembler.push(decoder.piece(token))).join("") + assembler.end();
}

const byteToken = (byte: number) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;

Deno.test("byte tokens give back any text", () => {
  const decoder = tokenDecoder(LLAMA);
  fc.assert(fc.property(fc.string({ unit: "grapheme" }), (text) => {
    const tokens = [...new TextEncoder().encode(`x${text}`)].map(byteToken);
    assert.equal(decode(decoder, tokens), `x${text}`);
  }));
});

Deno.test("streamed pieces are whole characters and join to the text, whatever the bytes", () => {
  const decoder = tokenDecoder(LLAMA);
  // Without 0xBD no bytes spell U+FFFD itself, so each one in the text stands for one lost byte.
  const byte = fc.nat(255).filter((value) => value !== 0xbd);
  const bytesOf = (char: string) => char === "\ufffd" ? 1 : new TextEncoder().encode(char).length;
  fc.assert(fc.property(fc.array(byte), (bytes) => {
    const assembler = decoder.assembler();
    const pieces = [0x78, ...bytes].map((value) => assembler.push(decoder.piece(byteToken(value))));
    pieces.push(assembler.end());
    assert.ok(pieces.every((piece) => piece.isWellFormed()));
    const covered = [...pieces.join("")].reduce((sum, char) => sum + bytesOf(char), 0);
    assert.equal(covered, bytes.length + 1);
  }));
});

Deno.test("a text token ends a run of byte tokens", () => {
  assert.equal(decode(tokenDecoder(LLAMA), ["▁a", "<0xF0>", "<0x9F>", "▁ok"]), "a\ufffd\ufffd ok");
});

Deno.test("only the text's first space is stripped", () => {
  assert.equal(decode(tokenDecoder(LLAMA), ["▁", "▁a", "▁b"]), " a b");
});

Deno.test("ByteLevel reads tokens that are no bytes as they stand", () => {
  const decoder = tokenDecoder({ type: "ByteLevel" });
  assert.equal(decode(decoder, ["Ġhi", "<｜x y｜>", "Ċ"]), " hi<｜x y｜>\n");
  assert.equal(decode(decoder, ["ðŁĺ", "Ģ"]), "😀");
});

Deno.test("no decoder joins with spaces, Metaspace drops the first", () => {
  assert.equal(decode(tokenDecoder(null), ["ab", "cd"]), "ab cd");
  assert.equal(
    decode(tokenDecoder({ type: "Metaspace", replacement: "▁", prepend_scheme: "first" }), ["▁a", "▁b"]),
    "a b",
  );
  assert.equal(
    decode(tokenDecoder({ type: "Metaspace", replacement: "▁", prepend_scheme: "never" }), ["▁a"]),
    " a",
  );
});

Deno.test("tokenDecoder() refuses what it cannot decode token by token", () => {
  const strip = { type: "Strip", content: " ", start: 0, stop: 1 };
  for (
    const config of [{ type: "CTC" }, {}, 5, { type: "Sequence" }, {
      type: "Sequence",
      decoders: [{ type: "Fuse" }, strip],
    }]
  ) {
    assert.throws(() => tokenDecoder(config), { code: "invalid_tokenizer" });
  }
});
