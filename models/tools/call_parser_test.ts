import assert from "node:assert/strict";
import fc from "fast-check";
import { type AnswerPart, ToolCallParser } from "./call_parser.ts";
import { TOOL_SYNTAXES, type ToolSyntax } from "./syntax.ts";

const NAMES = ["get_weather", "get_weather_now", "stop"];
interface Answer {
  readonly content: string;
  readonly calls: readonly (readonly [name: string, args: string])[];
}

const syntax = (name: string): ToolSyntax => TOOL_SYNTAXES.find((s) => s.name === name)!;

function read(syntaxName: string, chunks: readonly string[]): Answer {
  const parser = new ToolCallParser(syntax(syntaxName), NAMES);
  return join([...chunks.flatMap((chunk) => parser.push(chunk)), ...parser.end()]);
}
function join(parts: readonly AnswerPart[]): Answer {
  let content = "";
  const calls: [string, string][] = [];
  for (const part of parts) {
    if (part.type === "content") content += part.text;
    else if (part.type === "call") assert.equal(calls.push([part.name, ""]), part.index + 1);
    else calls[part.index][1] += part.text;
  }
  return { content, calls };
}

const PARIS = '{"city": "Paris"}', KOELN = '{"city":"Köln 🌧","n":[1,-2.5e3,true,null,{"a":"\\"}\\u00e9"}]}';
const BOTH = [["get_weather", PARIS], ["stop", KOELN]] as const;
const hermes = (name: string, args: string) =>
  `<tool_call>\n{"name": "${name}", "arguments": ${args}}\n</tool_call>`;

/** What models of each syntax write. */
const ANSWERS: readonly [syntax: string, text: string, content: string, calls: Answer["calls"]][] = [
  ["hermes", hermes("get_weather", PARIS) + "\n" + hermes("stop", KOELN), "", BOTH],
  ["hermes", `I look.\n\n${hermes("stop", "{}")}\n Done.`, "I look.\n Done.", [["stop", "{}"]]],
  ["llama3", `{"name": "get_weather", "parameters": ${PARIS}}`, "", BOTH.slice(0, 1)],
  [
    "llama3",
    `<|python_tag|>{"name":"get_weather","parameters":${PARIS}}; {"name":"stop","parameters":${KOELN}}`,
    "",
    BOTH,
  ],
  [
    "llama3",
    `\n{"type":"function","name":"get_weather","parameters":${PARIS}}\n{"name":"stop","arguments":${KOELN}}`,
    "",
    BOTH,
  ],
  [
    "mistral",
    `[TOOL_CALLS] [{"name": "get_weather", "arguments": ${PARIS}}, {"name": "stop", "arguments": ${KOELN}, "id": "abcdefghi"}]`,
    "",
    BOTH,
  ],
  ["mistral", `[TOOL_CALLS][{"arguments": ${PARIS}, "name": "get_weather"}]`, "", BOTH.slice(0, 1)],
  ["mistral_args", `Well [TOOL_CALLS]get_weather[ARGS]${PARIS}[TOOL_CALLS]stop[ARGS]${KOELN}`, "Well", BOTH],
  [
    "functools",
    `functools[{"name": "get_weather", "arguments": ${PARIS}},{"name": "stop", "arguments": ${KOELN}}]`,
    "",
    BOTH,
  ],
  ["granite", `<|tool_call|>[{"name": "get_weather", "arguments": ${PARIS}}]`, "", BOTH.slice(0, 1)],
  ["granite", `<|tool_call|>{"name": "get_weather", "arguments": ${PARIS}}`, "", BOTH.slice(0, 1)],
  [
    "tool_call_object",
    `<|tool_call|>{"name": "get_weather", "arguments": ${PARIS}}<|/tool_call|><|tool_call|>{"name": "stop", "arguments": ${KOELN}}<|/tool_call|>`,
    "",
    BOTH,
  ],
  [
    "deepseek_v3",
    `Sure<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n\`\`\`json\n${PARIS}\n\`\`\`<｜tool▁call▁end｜>\n` +
    `<｜tool▁call▁begin｜>function<｜tool▁sep｜>stop\n\`\`\`json\n${KOELN}\n\`\`\`<｜tool▁call▁end｜><｜tool▁calls▁end｜>`,
    "Sure",
    BOTH,
  ],
  [
    "deepseek_v3.1",
    `<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>${PARIS}<｜tool▁call▁end｜>` +
    `<｜tool▁call▁begin｜>stop<｜tool▁sep｜>${KOELN}<｜tool▁call▁end｜><｜tool▁calls▁end｜>`,
    "",
    BOTH,
  ],
];

/** No calls, or calls that go wrong: nothing is lost. */
const CONTENT: readonly (readonly [syntax: string, text: string])[] = [
  ["hermes", "  Hello\n\nworld \n"],
  ["hermes", "a < b, <tool_call, <tool_call>"],
  ["hermes", hermes("unknown", "{}")],
  ["hermes", hermes("get_weather", "[]")],
  ["hermes", hermes("get_weather", '"no json"')],
  ["hermes", '<tool_call>{"nam": "stop"}</tool_call>'],
  ["hermes", '<tool_call>{"arguments": {}}</tool_call>'],
  ["hermes", '<tool_call>{"name": "stop", "arguments": '],
  ["llama3", '{"city": "Paris", "name": "stop"}'],
  ["llama3", 'Use {"name": "stop", "parameters": {}}'],
  ["llama3", "{"],
  ["mistral", "[TOOL_CALLS][]"],
  ["deepseek_v3", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>stop\n```"],
];

/** Arguments that go wrong in their middle: what was read is arguments, the rest content. */
const BROKEN: readonly [syntax: string, text: string, content: string, calls: Answer["calls"]][] = [
  ["hermes", hermes("stop", '{"a": 1, b}'), "b}}\n</tool_call>", [["stop", '{"a": 1, ']]],
  ["hermes", '<tool_call>{"name": "stop", "arguments": {"a": "cut o', "", [["stop", '{"a": "cut o']]],
  ["hermes", hermes("stop", '{"a": 01}'), "}}\n</tool_call>", [["stop", '{"a": 01']]],
  ["hermes", '<tool_call>{"name": "stop", "arguments": {}} and', " and", [["stop", "{}"]]],
  ["hermes", '<tool_call>{"name": "stop"}</tool_call>', "", [["stop", "{}"]]],
  ["hermes", hermes("stop", "null"), "", [["stop", "{}"]]],
  ["hermes", hermes("stop", JSON.stringify(PARIS)), "", [["stop", PARIS]]],
  ["mistral", '[TOOL_CALLS][{"name": "stop", "arguments": {}}, {"name": "x"}]', ', {"name": "x"}]', [[
    "stop",
    "{}",
  ]]],
];

Deno.test("ToolCallParser reads the calls of every syntax", () => {
  for (const [name, text, content, calls] of ANSWERS) {
    assert.deepEqual(read(name, [text]), { content, calls }, text);
  }
  const shown = new Set(ANSWERS.map(([name]) => name));
  assert.deepEqual(TOOL_SYNTAXES.filter(({ name }) => !shown.has(name)), []);
});

Deno.test("ToolCallParser loses nothing of what is no call", () => {
  for (const [name, text] of CONTENT) {
    assert.deepEqual(read(name, [text]), { content: text, calls: [] });
  }
  for (const [name, text, content, calls] of BROKEN) {
    assert.deepEqual(read(name, [text]), { content, calls }, text);
  }
});

Deno.test("ToolCallParser gives the same wherever the parts of an answer end", () => {
  const known = [...ANSWERS, ...CONTENT, ...BROKEN].map(([name, text]) => [name, text] as const);
  const pieces = known.flatMap(([, text]) => text.split(/(?<=[>{[\],:}])/));
  const made = fc.tuple(
    fc.constantFrom(...TOOL_SYNTAXES.map((s) => s.name)),
    fc.array(fc.oneof(fc.constantFrom(...pieces), fc.string({ unit: "grapheme" })), { maxLength: 12 })
      .map((all) => all.join("")),
  );
  const borders = fc.array(fc.nat({ max: 300 }), { maxLength: 40 });
  fc.assert(
    fc.property(fc.oneof(fc.constantFrom(...known), made), borders, ([name, text], at) => {
      const cuts = [0, ...new Set(at.filter((n) => n < text.length).sort((a, b) => a - b)), text.length];
      const chunks = cuts.slice(1).map((end, i) => text.slice(cuts[i], end));
      const whole = read(name, [text]);
      assert.deepEqual(read(name, chunks), whole);
      assert.deepEqual(read(name, text.split("")), whole);
      if (whole.calls.length === 0) assert.equal(whole.content, text);
    }),
    { numRuns: 500 },
  );
});

Deno.test("ToolCallParser shows content and arguments as soon as they are sure", () => {
  const parser = new ToolCallParser(syntax("hermes"), NAMES);
  const shown = (text: string) => shownText(parser.push(text));
  assert.equal(shown("Let me"), "Let me");
  assert.equal(shown(" see <to"), " see");
  assert.equal(shown('ol_call>{"name": "get_weather'), "");
  assert.equal(shown('", "arguments": '), "");
  assert.equal(shown('{"ci'), 'get_weather: {"ci');
  assert.equal(shown('ty": "P'), 'ty": "P');
  assert.equal(parser.calls, 1);
});

const shownText = (parts: readonly AnswerPart[]): string =>
  parts.map((part) => part.type === "call" ? `${part.name}: ` : part.text).join("");

Deno.test("ToolCallParser gets through answers that begin calls again and again", () => {
  for (const part of ["<tool_call>", '<tool_call>{"arguments": {"a": "', '{"arguments":', "[", " "]) {
    const parser = new ToolCallParser(syntax("hermes"), NAMES);
    const text = part.repeat(20_000 / part.length);
    const parts = [...parser.push(text), ...parser.end()];
    assert.equal(join(parts).content, text);
  }
});
