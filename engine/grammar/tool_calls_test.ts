/** Grammars of tool calls against the reader of answers: whatever a grammar lets through is read as valid calls. */
import assert from "node:assert/strict";
import {
  callRules,
  callRulesAfterBegin,
  callRulesOrSchema,
  callRulesOrText,
} from "../../models/tools/call_grammar.ts";
import { type AnswerPart, ToolCallParser } from "../../models/tools/call_parser.ts";
import { TOOL_SYNTAXES, type ToolSyntax } from "../../models/tools/syntax.ts";
import { byteTokenizer, EOS } from "../../tests/fake_engine.ts";
import { Random } from "../random.ts";
import type { RulesSource } from "./grammar_worker.ts";
import { Grammars } from "./grammars.ts";
import { MaskMailbox } from "./mask_mailbox.ts";
import { rulesNamed } from "./rules.ts";
import { vocabularyTokens } from "./vocabulary.ts";

const VOCAB = byteTokenizer.vocabSize;
const NAMES = ["get_weather", "get", "x-1"];
const UNITS = ['C "quoted"', "F]", "é"];
const SCHEMA = {
  type: "object",
  properties: {
    unit: { enum: UNITS },
    days: { type: "array", items: { type: "integer", minimum: 0, maximum: 40 }, minItems: 1, maxItems: 3 },
    now: { $ref: "#/$defs/now" },
  },
  required: ["unit", "days"],
  $defs: { now: { type: "boolean" } },
};
const source = (rules: string[], trigger: string | null = null): RulesSource => ({
  rules,
  schemas: Object.fromEntries(
    [...NAMES.map((_, i) => `arguments_${i}`), "answer"]
      .map((name) => [name, { schema: JSON.stringify(SCHEMA), strict: true }]),
  ),
  trigger,
});
const syntax = (name: string): ToolSyntax => TOOL_SYNTAXES.find((s) => s.name === name)!;

/** Whether the grammar lets `text` through, and whether it may end there. */
async function fits(grammars: Grammars, grammar: RulesSource, text: string): Promise<boolean> {
  using masks = await open(grammars, grammar);
  const leader = new MaskMailbox(masks.buffer);
  return [...new TextEncoder().encode(text), EOS].every((token) => {
    const mask = leader.next();
    const allowed = typeof mask !== "string" && (mask[token >> 5] >>> (token & 31) & 1) === 1;
    if (allowed) leader.accept(token);
    return allowed;
  });
}
const open = (grammars: Grammars, source: RulesSource) =>
  grammars.open({
    source,
    vocabulary: async () => ({ tokens: await vocabularyTokens(byteTokenizer), stopIds: [EOS] }),
    param: "tools",
  });

/** Goes one of the ways that the grammar leaves, and at some place where it may end, ends. */
async function walk(grammars: Grammars, grammar: RulesSource, random: Random): Promise<string> {
  using masks = await open(grammars, grammar);
  const leader = new MaskMailbox(masks.buffer), bytes: number[] = [];
  for (let mask = leader.next(); typeof mask !== "string"; mask = leader.next()) {
    const allowed = Array.from({ length: VOCAB }, (_, id) => id)
      .filter((id) => (mask as Int32Array)[id >> 5] >>> (id & 31) & 1);
    const ways = allowed.filter((id) => id !== EOS);
    if (ways.length === 0 || (ways.length < allowed.length && random.next() < 0.7)) break;
    const token = ways[Math.floor(random.next() * ways.length)];
    bytes.push(token);
    leader.accept(token);
  }
  return new TextDecoder().decode(Uint8Array.from(bytes));
}

function check(text: string, syntax: ToolSyntax): number {
  const parser = new ToolCallParser(syntax, NAMES);
  const parts: AnswerPart[] = [...parser.push(text), ...parser.end()];
  assert.deepEqual(parts.filter((p) => p.type === "content"), [], text);
  const args: string[] = [];
  for (const part of parts) {
    if (part.type === "arguments") args[part.index] = (args[part.index] ?? "") + part.text;
  }
  for (const text of args) {
    const { unit, days, now = true } = JSON.parse(text);
    assert.ok(UNITS.includes(unit) && days.every(Number.isInteger) && typeof now === "boolean", text);
  }
  return args.length;
}

const withGrammars = (name: string, run: (grammars: Grammars) => Promise<void>) =>
  Deno.test(name, async () => {
    const grammars = new Grammars(VOCAB);
    try {
      await run(grammars);
    } finally {
      grammars.close();
    }
  });

withGrammars("forced calls of every syntax are read as valid calls, whatever is drawn", async (grammars) => {
  const random = new Random(5);
  for (const syntax of TOOL_SYNTAXES) {
    for (const parallel of [true, false]) {
      const grammar = source(callRules(syntax, { names: NAMES, parallel }));
      for (let i = 0; i < 4; i++) {
        const calls = check(await walk(grammars, grammar, random), syntax);
        assert.ok(calls >= 1 && (parallel || calls === 1), syntax.name);
      }
    }
  }
});

const CALL = '{"name": "get", "arguments": {"unit": "é", "days": [1]}}';
const CASES: readonly [name: string, rules: RulesSource, yes: string[], no: string[]][] = [
  [
    "several calls where they may be parallel, one where not",
    source(callRules(syntax("hermes"), { names: NAMES, parallel: true })),
    [
      `<tool_call>\n${CALL}\n</tool_call>`,
      `<tool_call>${CALL}</tool_call>\n<tool_call>\n${CALL}</tool_call>`,
    ],
    ["", "Hi", `<tool_call>\n${CALL}`, `<tool_call>${CALL}, ${CALL}</tool_call>`],
  ],
  [
    "one list of calls",
    source(callRules(syntax("mistral"), { names: NAMES, parallel: false })),
    [`[TOOL_CALLS][${CALL}]`, `[TOOL_CALLS] [ ${CALL} ]`],
    [`[TOOL_CALLS][${CALL}, ${CALL}]`, "[TOOL_CALLS][]"],
  ],
  [
    "any text, and after the mark a call",
    source(callRulesAfterBegin(syntax("hermes"), { names: NAMES, parallel: true }), "<tool_call>"),
    ["", "Hi <tool_cal", `Hi\n<tool_call>\n${CALL}\n</tool_call> and <tool_call>${CALL}</tool_call>.`],
    ["<tool_call> Hi", `<tool_call>${CALL}`, '<tool_call>{"name": "unknown'],
  ],
  [
    "any text that does not begin as a call does",
    source(callRulesOrText(syntax("llama3"), { names: NAMES, parallel: true })),
    ["", "Hi {}", CALL.replace("arguments", "parameters")],
    ["{}", CALL.replace("get", "unknown")],
  ],
  [
    "calls, or an answer that has its schema",
    source(callRulesOrSchema(syntax("hermes"), { names: NAMES, parallel: true })),
    [`<tool_call>${CALL}</tool_call>`, '{"unit": "é", "days": [1]}'],
    ["", "{}", "Hi"],
  ],
];
for (const [name, grammar, yes, no] of CASES) {
  withGrammars(`a grammar lets through ${name}`, async (grammars) => {
    for (const text of yes) assert.ok(await fits(grammars, grammar, text), text);
    for (const text of no) assert.ok(!await fits(grammars, grammar, text), text);
  });
}

Deno.test("rulesNamed() renames rules, but neither texts, classes of characters nor shared rules", () => {
  const ebnf =
    'basic_null ::= "null"\nroot ::= "root" [root\\]"] root_part{0,16} basic_null\nroot_part ::= "a\\"b" root\n';
  assert.deepEqual(rulesNamed(ebnf, "args"), [
    'basic_null ::= "null"',
    'args ::= "root" [root\\]"] args_root_part{0,16} basic_null',
    'args_root_part ::= "a\\"b" args',
  ]);
});
