import assert from "node:assert/strict";
import { OatmillError } from "../errors.ts";
import { type ChatMessage, ChatTemplates } from "./chat_templates.ts";
import { oracleTest, shared } from "./testing/shared.ts";
import { readTokenizerFiles, writeTokenizerFiles } from "./tokenizer_files.ts";

const CALL: ChatMessage = {
  role: "assistant",
  content: "",
  tool_calls: [{ id: "abcdefghi", type: "function", function: { name: "f", arguments: { a: "ö", n: [1] } } }],
};
const TOOLS = [{ type: "function", function: { name: "f", parameters: { type: "object", properties: {} } } }];
const calls = (args: string) =>
  `{% for m in messages if m.tool_calls %}{% for c in m.tool_calls %}${args}{% endfor %}{% endfor %}`;
const templates = (chatTemplate: string | null, toolTemplate: string | null = null) =>
  new ChatTemplates({ chatTemplate, toolTemplate }, {});

oracleTest("conversations with tools render as transformers renders them", "oracles/tokenizers", async () => {
  const { templates: known, message_lists, rendered } = JSON.parse(
    await Deno.readTextFile(shared("oracles/tokenizers/chat_templates.json")),
  );
  const { messages, tools } = message_lists.tools;
  const support: Record<string, unknown> = {};
  for (const [name, { template, special_tokens }] of Object.entries<Record<string, never>>(known)) {
    const loaded = new ChatTemplates({ chatTemplate: template }, special_tokens);
    const { toolSupport } = loaded;
    support[name] = typeof toolSupport === "string" ? toolSupport : toolSupport.name;
    if (typeof toolSupport === "string") continue;
    [false, true].forEach((addGenerationPrompt, i) => {
      assert.equal(loaded.render(messages, { tools, addGenerationPrompt }), rendered[name].tools[i]);
    });
  }
  const others = Object.keys(known).map((name) => [name, "none"]);
  assert.deepEqual(support, { ...Object.fromEntries(others), qwen3_tokenizer_config: "hermes" });
});

Deno.test("arguments are what the template takes: an object, or its JSON text", () => {
  assert.equal(
    templates(calls("{{ c.function.arguments | tojson }}")).render([CALL]),
    '{"a": "ö", "n": [1]}',
  );
  assert.equal(templates(calls("{{ c.function.arguments.a }}{{ c.id }}")).render([CALL]), "öabcdefghi");
  const joined = calls("{{ '<' + c.function.arguments + '>' }}");
  assert.equal(templates(joined).render([CALL]), '<{"a":"ö","n":[1]}>');
});

Deno.test("a model's template says whether it knows tools, and how they are called", () => {
  const support = (template: string) => {
    const { toolSupport } = templates(template);
    return typeof toolSupport === "string" ? toolSupport : toolSupport.name;
  };
  const cases: [template: string, support: string][] = [
    ["{{ messages[0].tools }} <tool_call>", "none"],
    ["{# tools #}<tool_call>", "none"],
    ["{% if tools is not none %}{{ tools | tojson }}{% endif %}", "unknown"],
    ["{{ tools }}<tool_call>\n<function=name>", "unknown"],
    ["{{ tools }}<tool_call>", "hermes"],
    [
      "{% macro m(t) %}{% for x in t %}{{ x }}{% endfor %}{% endmacro %}{{ m(tools) }}<|python_tag|>",
      "llama3",
    ],
    ["{{ tools }}[TOOL_CALLS][", "mistral"],
    ["{{ tools }}[TOOL_CALLS]name[ARGS]", "mistral_args"],
    ["{{ tools }}<|tool_call|>", "granite"],
    ['{{ tools }}<|tool_call|>{"name"', "tool_call_object"],
    ["{{ tools }}functools[", "functools"],
    ["{{ tools }}<｜tool▁calls▁begin｜>", "deepseek_v3.1"],
    ["{{ tools }}<｜tool▁calls▁begin｜>\n```json", "deepseek_v3"],
  ];
  for (const [template, expected] of cases) assert.equal(support(template), expected, template);
});

Deno.test("a template of its own is taken for conversations with tools alone", () => {
  const two = templates("plain", "{{ tools | length }} <tool_call>");
  assert.equal(two.render([CALL]), "plain");
  assert.equal(two.render([CALL], { tools: TOOLS }), "1 <tool_call>");
  assert.equal(typeof two.toolSupport, "object");
  const alone = templates(null, "{{ tools | length }}");
  assert.equal(alone.render([], { tools: TOOLS }), "1");
  assert.throws(
    () => alone.render([]),
    (e) => e instanceof OatmillError && e.code === "invalid_chat_template",
  );
});

Deno.test("a list of named templates survives reading, writing and reading", async () => {
  const folder = await Deno.makeTempDir();
  const list = [{ name: "rag", template: "r" }, { name: "tool_use", template: "t" }, {
    name: "default",
    template: "d",
  }];
  const write = (name: string, json: unknown) =>
    Deno.writeTextFile(`${folder}/${name}`, JSON.stringify(json));
  await write("tokenizer.json", { model: { type: "BPE", vocab: {}, merges: [] } });
  await write("tokenizer_config.json", { eos_token: "x", chat_template: list });
  const files = (await readTokenizerFiles(folder))!;
  assert.deepEqual([files.chatTemplate, files.toolTemplate], ["d", "t"]);
  await writeTokenizerFiles(folder, files);
  const again = (await readTokenizerFiles(folder))!;
  assert.deepEqual([again.chatTemplate, again.toolTemplate, again.config.eos_token], ["d", "t", "x"]);
  await Deno.mkdir(`${folder}/additional_chat_templates`);
  await Deno.writeTextFile(`${folder}/additional_chat_templates/tool_use.jinja`, "own file");
  assert.equal((await readTokenizerFiles(folder))!.toolTemplate, "own file");
  await Deno.remove(folder, { recursive: true });
});
