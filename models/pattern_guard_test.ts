import assert from "node:assert/strict";
import { preTokenizerOf } from "./formats/gguf_pre_tokenizers.ts";
import { patternProblem } from "./pattern_guard.ts";

Deno.test("patternProblem() refuses repeated repetitions", () => {
  for (const source of ["(a+)+$", "(?:a*)*", "((ab+)c)*", "(a{1000}){1000}", "([ab]+|c){2,}", "(x+x+)+y"]) {
    assert.ok(patternProblem(source), source);
  }
});

Deno.test("patternProblem() refuses unmatched parentheses and huge patterns", () => {
  for (const source of ["(a", "a)", "a".repeat(30_000)]) assert.ok(patternProblem(source));
});

Deno.test("patternProblem() allows the patterns of public tokenizers", () => {
  for (const name of ["llama-bpe", "qwen2", "tekken"]) {
    const { preTokenizer } = preTokenizerOf(name)!;
    const [{ pattern }] = preTokenizer.pretokenizers as { pattern: { Regex: string } }[];
    assert.equal(patternProblem(pattern.Regex), null, name);
  }
  const deepseek =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+";
  assert.equal(patternProblem(deepseek), null);
  assert.equal(patternProblem("(?i:'s|'t)?(a|b)*[+*](\\+)*"), null);
});
