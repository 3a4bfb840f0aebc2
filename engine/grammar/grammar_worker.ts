/**
 * One grammar in a thread of its own: compiles it, then makes the masks of every generation under it. What fails to compile
 * aborts the whole WebAssembly instance, so no two grammars share one.
 */
import type { CompiledGrammar, Grammar, GrammarCompiler } from "@mlc-ai/web-xgrammar";
import { MaskMailbox } from "./mask_mailbox.ts";
import { rulesNamed } from "./rules.ts";
import type { GrammarVocabulary } from "./vocabulary.ts";
import { abortReason, loadXGrammar } from "./xgrammar.ts";

export interface SchemaSource {
  /** JSON Schema, as text. */
  readonly schema: string;
  /** Where the schema says nothing of it, objects have the properties that it names, and no others. */
  readonly strict: boolean;
}
export interface RulesSource {
  /** xgrammar's EBNF, a rule a line; "root" begins. */
  readonly rules: readonly string[];
  /** Schemas that the rules know by name. */
  readonly schemas: Readonly<Record<string, SchemaSource>>;
  /** Any text may come, but after this one the rules; null: the text follows them from its beginning. */
  readonly trigger: string | null;
}
/** What a grammar is made of. */
export type GrammarSource = SchemaSource | RulesSource;

export type ToGrammar =
  | {
    readonly type: "compile";
    readonly source: GrammarSource;
    readonly vocabulary: GrammarVocabulary;
    /** Length of a row of logits. */
    readonly vocab: number;
  }
  /** A generation begins. */
  | { readonly type: "open"; readonly buffer: SharedArrayBuffer };

export type FromGrammar =
  | { readonly type: "compiled" }
  /** The source is wrong. */
  | { readonly type: "refused"; readonly reason: string };

/** Most white space between two tokens of JSON: without a limit, small models go on with it for ever. */
const MOST_WHITESPACE = 16;
/** The indentation that xgrammar takes for none. */
const ONE_LINE = -1;

const scope = self as unknown as { // the compiler's DOM library types `self` as a window
  onmessage: (e: MessageEvent<ToGrammar>) => void;
  postMessage(m: FromGrammar): void;
};
const xgrammar = loadXGrammar();
let compiled: CompiledGrammar;
let endsAlone = false;

scope.onmessage = async ({ data }) => {
  if (data.type === "open") return await serve(new MaskMailbox(data.buffer));
  try {
    compiled = await compile(data);
    scope.postMessage({ type: "compiled" });
  } catch {
    scope.postMessage({ type: "refused", reason: abortReason() });
  }
};

async function compile(
  { source, vocabulary, vocab }: ToGrammar & { type: "compile" },
): Promise<CompiledGrammar> {
  const { TokenizerInfo, GrammarCompiler } = await xgrammar;
  const { tokens, stopIds } = vocabulary;
  endsAlone = stopIds.length === 0;
  const info = await TokenizerInfo.createTokenizerInfo(
    tokens.slice(0, vocab),
    "byte_level",
    false,
    vocab,
    [...stopIds],
  );
  const compiler = await GrammarCompiler.createGrammarCompiler(info, false);
  return "rules" in source
    ? await compiler.compileGrammar(await grammarOf(source))
    : await compileSchema(compiler, source);
}

const compileSchema = (
  compiler: GrammarCompiler,
  { schema, strict }: SchemaSource,
): Promise<CompiledGrammar> =>
  compiler.compileJSONSchema(schema, true, undefined, undefined, strict, MOST_WHITESPACE);

async function grammarOf({ rules, schemas, trigger }: RulesSource): Promise<Grammar> {
  const { Grammar, Testings } = await xgrammar;
  const all = new Set(rules);
  for (const [name, { schema, strict }] of Object.entries(schemas)) {
    // No other function gives it before it is made larger. JSON is spaced as Python's json.dumps does it, which is how chat
    // templates show calls: with free white space 8 schemas took 2 s to compile and 32 more than 10, now 1 and 2.
    const ebnf = await Testings._jsonSchemaToEBNF(schema, false, ONE_LINE, undefined, strict);
    for (const rule of rulesNamed(ebnf, name)) all.add(rule);
  }
  const grammar = [...all].join("\n");
  if (trigger === null) return await Grammar.fromEBNF(grammar);
  return await Grammar.fromStructuralTag({
    type: "triggered_tags",
    triggers: [trigger],
    tags: [{ type: "tag", begin: trigger, content: { type: "grammar", grammar }, end: "" }],
  });
}

/** One generation: a mask, a token, in turns. What is thrown ends the thread, and with it all its generations. */
async function serve(mailbox: MaskMailbox): Promise<void> {
  const { GrammarMatcher } = await xgrammar;
  const matcher = await GrammarMatcher.createGrammarMatcher(compiled, undefined, endsAlone);
  try {
    for (;;) {
      mailbox.answer(matcher.isTerminated() ? "ended" : await matcher.getNextTokenBitmask());
      const token = await mailbox.token();
      if (token === null) return;
      if (!matcher.acceptToken(token)) throw new Error(`The grammar allowed token ${token} and refuses it`);
    }
  } finally {
    matcher.dispose();
  }
}
