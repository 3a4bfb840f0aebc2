import assert from "node:assert/strict";
import { OatmillError } from "../../errors.ts";
import { byteTokenizer, EOS } from "../../tests/fake_engine.ts";
import { until } from "../../tests/until.ts";
import { type GrammarRequest, Grammars } from "./grammars.ts";
import { MaskMailbox } from "./mask_mailbox.ts";
import { vocabularyTokens } from "./vocabulary.ts";

const VOCAB = byteTokenizer.vocabSize;
const request = (schema: object, stopIds = [EOS]): GrammarRequest => ({
  source: { schema: JSON.stringify(schema), strict: true },
  vocabulary: async () => ({ tokens: await vocabularyTokens(byteTokenizer), stopIds }),
  param: "response_format",
});
const allowed = (mask: ReturnType<MaskMailbox["next"]>): number[] =>
  Array.from({ length: VOCAB }, (_, id) => id).filter((id) =>
    (mask as Int32Array)[id >> 5] >>> (id & 31) & 1
  );

/** Goes the only way that a grammar leaves, byte for byte. */
function onlyText(buffer: SharedArrayBuffer): string {
  const leader = new MaskMailbox(buffer), bytes: number[] = [];
  for (let mask = leader.next(); mask !== "ended"; mask = leader.next()) {
    const [token, ...others] = allowed(mask);
    assert.deepEqual(others, []);
    if (token === EOS) break;
    bytes.push(token);
    leader.accept(token);
  }
  return new TextDecoder().decode(Uint8Array.from(bytes));
}

Deno.test("Grammars allow what the schema allows, byte for byte, and end with or without a stop token", async () => {
  const grammars = new Grammars(VOCAB);
  try {
    for (const stopIds of [[EOS], []]) {
      using masks = await grammars.open(request({ const: `Käfer 🌾 ${stopIds.length}` }, stopIds));
      assert.equal(onlyText(masks.buffer), `"Käfer 🌾 ${stopIds.length}"`);
    }
  } finally {
    grammars.close();
  }
});

Deno.test("Grammars run several generations under one schema at once", async () => {
  const grammars = new Grammars(VOCAB);
  try {
    const all = await Promise.all([1, 2, 3].map(() => grammars.open(request({ const: "same" }))));
    assert.deepEqual(all.map(({ buffer }) => onlyText(buffer)), Array(3).fill('"same"'));
    for (const masks of all) masks[Symbol.dispose]();
  } finally {
    grammars.close();
  }
});

Deno.test("Grammars refuse one too many in use, make room among those that are not, and close", async () => {
  const grammars = new Grammars(VOCAB);
  const open = (i: number) => grammars.open(request({ const: i }));
  try {
    const all = await Promise.all(Array.from({ length: 4 }, (_, i) => open(i)));
    await assert.rejects(open(8), (e) => e instanceof OatmillError && e.code === "rate_limit_exceeded");
    all[3][Symbol.dispose]();
    using ninth = await open(8);
    assert.equal(onlyText(ninth.buffer), "8");
    const waiting = new MaskMailbox(all[0].buffer);
    grammars.close();
    await until(() => waiting.next() === "failed");
    await assert.rejects(open(1), (e) => e instanceof OatmillError && e.code === "unavailable");
  } finally {
    grammars.close();
  }
});
