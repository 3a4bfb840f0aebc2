import assert from "node:assert/strict";
import { type Memory, SentParts } from "./sent_parts.ts";

function memory(): Memory & { readonly kept: Map<string, string> } {
  const kept = new Map<string, string>();
  return {
    kept,
    get length() {
      return kept.size;
    },
    key: (i) => [...kept.keys()][i] ?? null,
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, value) => void kept.set(key, value),
    removeItem: (key) => void kept.delete(key),
  };
}
const FILE = { name: "m.gguf", size: 9, lastModified: 1 };
const SENT = { upload: "upload-1", partBytes: 4, parts: ["part-1"] };

Deno.test("what was sent of a file is remembered until it is whole or abandoned", () => {
  const own = memory(), sent = new SentParts(() => own);
  assert.equal(sent.recall(FILE), null);
  sent.remember(FILE, SENT);
  const { upload, parts } = sent.recall(FILE)!;
  assert.deepEqual([upload, parts], [SENT.upload, SENT.parts]);
  assert.equal(sent.recall({ ...FILE, size: 10 }), null);
  own.kept.set("another page's", "{}").set("oatmill-upload broken", "{").set(
    "oatmill-upload old",
    '{"parts":[]}',
  );
  sent.tidy();
  assert.deepEqual([...own.kept.keys()].sort(), ["another page's", "oatmill-upload m.gguf 9 1"]);
  sent.tidy(Date.now() + 25 * 3600_000);
  assert.equal(sent.recall(FILE), null);
  sent.remember(FILE, SENT);
  sent.forget(FILE);
  assert.equal(own.length, 1);
});

Deno.test("a browser that keeps nothing stops no upload", () => {
  const refuse = () => {
    throw new DOMException("The quota has been exceeded", "QuotaExceededError");
  };
  for (
    const broken of [refuse, () => ({ ...memory(), setItem: refuse, getItem: refuse, removeItem: refuse })]
  ) {
    const sent = new SentParts(broken as () => Memory);
    sent.remember(FILE, SENT);
    sent.forget(FILE);
    sent.tidy();
    assert.equal(sent.recall(FILE), null);
  }
});
