/** Checks a tokenizer.json before it is used: the library trusts it, but uploads are not trustworthy. */
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import { isJsonObject, type JsonObject } from "./formats/json_file.ts";
import { patternProblem } from "./pattern_guard.ts";

/** Vocabularies have up to 300,000 entries; arrays are indexed by id. */
const MAX_TOKEN_ID = (1 << 23) - 1;
const MAX_COMPONENT_DEPTH = 8;
const MODEL_TYPES = ["BPE", "Unigram", "WordPiece"];

const addedTokensSchema = z.array(z.object({
  id: z.int().min(0).max(MAX_TOKEN_ID),
  content: z.string().min(1, "content must not be empty"),
  special: z.boolean().optional(),
})).nullish();

/**
 * @param options.vocabulary false leaves the vocabulary and the merges unread: half of the time a tokenizer takes to load
 * (60 of 120 ms for SmolLM2's 49k tokens), for files whose hash shows them to be what was checked before
 * @throws {OatmillError} invalid_tokenizer naming the part
 */
export function checkTokenizerJson(json: JsonObject, { vocabulary = true } = {}): void {
  const added = addedTokensSchema.safeParse(json.added_tokens);
  if (!added.success) {
    const { path, message } = added.error.issues[0];
    throw invalid(`added_tokens ${path.join(".")}: ${message}`);
  }
  if (!isJsonObject(json.model)) throw invalid("model is missing, must be an object");
  if (vocabulary) checkModel(json.model);
  for (const part of ["normalizer", "pre_tokenizer", "post_processor"]) {
    checkComponent(part, json[part] ?? null, 0);
  }
  checkTemplateTokens(json.post_processor, json);
}

function checkModel(model: JsonObject): void {
  const type = model.type ?? "BPE";
  if (typeof type !== "string" || !MODEL_TYPES.includes(type)) {
    throw invalid(`unsupported model type ${JSON.stringify(type)?.slice(0, 80)}`);
  }
  if (type === "Unigram") return;
  if (!isJsonObject(model.vocab)) throw invalid("model.vocab is missing, must be an object");
  for (const [token, id] of Object.entries(model.vocab)) {
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) > MAX_TOKEN_ID) {
      throw invalid(
        `vocab id of ${JSON.stringify(token.slice(0, 40))} is ${
          JSON.stringify(id)
        }, must be an integer up to ${MAX_TOKEN_ID}`,
      );
    }
  }
  if (type === "BPE") checkMerges(model.merges, model.vocab);
}

function checkMerges(merges: unknown, vocab: JsonObject): void {
  if (!Array.isArray(merges)) throw invalid("model.merges is missing, must be a list");
  for (let i = 0; i < merges.length; i++) {
    const parts: unknown = typeof merges[i] === "string" ? merges[i].split(" ") : merges[i];
    if (
      !Array.isArray(parts) || parts.length !== 2 || typeof parts[0] !== "string" ||
      typeof parts[1] !== "string"
    ) {
      throw invalid(`merge ${i} must have two parts`);
    }
    for (const token of [parts[0], parts[1], parts[0] + parts[1]]) {
      if (!Object.hasOwn(vocab, token)) {
        throw invalid(`merge ${i} needs ${JSON.stringify(token.slice(0, 40))}, which the vocab lacks`);
      }
    }
  }
}

function checkComponent(part: string, value: unknown, depth: number): void {
  if (value === null) return;
  if (depth > MAX_COMPONENT_DEPTH) throw invalid(`${part} is nested too deeply`);
  if (!isJsonObject(value)) throw invalid(`${part} must be an object`);
  if (isJsonObject(value.pattern) && typeof value.pattern.Regex === "string") {
    const problem = patternProblem(value.pattern.Regex);
    if (problem) throw invalid(`${part}: ${problem}`);
  }
  for (const list of [value.normalizers, value.pretokenizers, value.processors]) {
    if (list === undefined) continue;
    if (!Array.isArray(list)) throw invalid(`${part} must be a list of steps`);
    for (const step of list) checkComponent(part, step, depth + 1);
  }
}

/** Tokens that a TemplateProcessing adds must be defined in it. */
function checkTemplateTokens(processor: unknown, json: JsonObject): void {
  if (!isJsonObject(processor)) return;
  for (const step of Array.isArray(processor.processors) ? processor.processors : []) {
    checkTemplateTokens(step, json);
  }
  if (processor.type !== "TemplateProcessing") return;
  const defined = isJsonObject(processor.special_tokens) ? processor.special_tokens : {};
  for (const item of Array.isArray(processor.single) ? processor.single : []) {
    const id = item?.SpecialToken?.id;
    if (id !== undefined && !Object.hasOwn(defined, id)) {
      throw invalid(`post_processor names the special token ${JSON.stringify(id)}, which it does not define`);
    }
  }
}

function invalid(why: string): OatmillError {
  return new OatmillError("invalid_tokenizer", `Cannot use tokenizer.json: ${why}`);
}
