/**
 * How `tokenizer.ggml.pre` splits text, as tokenizer.json components: the patterns of the models' own tokenizer.json files,
 * which llama.cpp mirrors in llama-vocab.cpp. An unknown name must be refused: another split gives other tokens.
 */
import { isDeepStrictEqual } from "node:util";
import { isJsonObject, type JsonObject } from "./json_file.ts";
import { GPT2_PRE_TOKENIZER } from "./vocab_merges.ts";

export interface PreTokenizerRule {
  readonly preTokenizer: JsonObject;
  readonly normalizer?: JsonObject;
  readonly ignoreMerges?: boolean;
  /** BOS is added unless the file says otherwise. */
  readonly addsBos?: boolean;
}

/** Single digits, then GPT-2's rule. */
const DIGITS_THEN_GPT2: JsonObject = {
  type: "Sequence",
  pretokenizers: [{ type: "Digits", individual_digits: true }, GPT2_PRE_TOKENIZER],
};

const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const SPACES = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const words = (digits: string) =>
  `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${SPACES}`;

function split(pattern: string): JsonObject {
  return {
    type: "Sequence",
    pretokenizers: [
      { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false },
      { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
    ],
  };
}

const LLAMA3: PreTokenizerRule = {
  preTokenizer: split(words("\\p{N}{1,3}")),
  ignoreMerges: true,
  addsBos: true,
};
const QWEN2: PreTokenizerRule = { preTokenizer: split(words("\\p{N}")), normalizer: { type: "NFC" } };
const GPT2: PreTokenizerRule = { preTokenizer: GPT2_PRE_TOKENIZER };
const SMOLLM: PreTokenizerRule = { preTokenizer: DIGITS_THEN_GPT2 };
const UPPER = "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}", LOWER = "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}";
const TEKKEN: PreTokenizerRule = {
  preTokenizer: split(
    `[^\\r\\n\\p{L}\\p{N}]?[${UPPER}]*[${LOWER}]+|[^\\r\\n\\p{L}\\p{N}]?[${UPPER}]+[${LOWER}]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACES}`,
  ),
  ignoreMerges: true,
  addsBos: true,
};

const RULES: ReadonlyMap<string, PreTokenizerRule> = new Map([
  // Files from before the field existed: GPT-2's and GPT-NeoX's vocabularies.
  ["default", GPT2],
  ["gpt-2", GPT2],
  ["phi-2", GPT2],
  ["mpt", GPT2],
  ["olmo", GPT2],
  ["smollm", SMOLLM],
  ["starcoder", SMOLLM],
  ["refact", SMOLLM],
  ["codeshell", SMOLLM],
  ["command-r", SMOLLM],
  ["llama-bpe", LLAMA3],
  ["llama3", LLAMA3],
  ["llama-v3", LLAMA3],
  ["dbrx", { preTokenizer: LLAMA3.preTokenizer }],
  ["smaug-bpe", { preTokenizer: LLAMA3.preTokenizer }],
  ["qwen2", QWEN2],
  ["deepseek-r1-qwen", QWEN2],
  ["stablelm2", { preTokenizer: QWEN2.preTokenizer }],
  ["tekken", TEKKEN],
]);

/** undefined: unknown. */
export function preTokenizerOf(name: string): PreTokenizerRule | undefined {
  return RULES.get(name);
}

/**
 * The other way round: how `tokenizer.ggml.pre` calls what a tokenizer.json does before its merges.
 * @returns undefined when no name says it
 */
export function preTokenizerName({ pre_tokenizer, normalizer, model }: JsonObject): string | undefined {
  const splits = splitsOf(pre_tokenizer), ignoreMerges = isJsonObject(model) && model.ignore_merges === true;
  const normalized = JSON.stringify(stepsOf(normalizer).map(({ type }) => type));
  const rules = RULES.entries().filter(([name]) => name !== "default"); // it says that nothing is known
  return rules.find(([, rule]) =>
    (rule.ignoreMerges ?? false) === ignoreMerges &&
    normalized === JSON.stringify(stepsOf(rule.normalizer).map(({ type }) => type)) &&
    isDeepStrictEqual(splits, splitsOf(rule.preTokenizer))
  )?.[0];
}

/** A component, or those of a sequence. */
function stepsOf(component: unknown): JsonObject[] {
  if (!isJsonObject(component)) return [];
  const inner = component.pretokenizers ?? component.normalizers;
  return Array.isArray(inner) ? inner.flatMap(stepsOf) : [component];
}

/** What decides where text is split; offsets, for one, do not. */
function splitsOf(preTokenizer: unknown): JsonObject[] {
  return stepsOf(preTokenizer).map((step) => {
    switch (step.type) {
      case "ByteLevel":
        return { type: "ByteLevel", space: step.add_prefix_space ?? true, regex: step.use_regex ?? true };
      case "Split":
        return {
          type: "Split",
          pattern: step.pattern,
          behavior: step.behavior,
          invert: step.invert ?? false,
        };
      default:
        return step;
    }
  });
}
