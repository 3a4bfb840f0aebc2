import assert from "node:assert/strict";
import { OatmillError } from "../errors.ts";
import { ChatTemplate } from "./chat_template.ts";
import { oracleTest, shared } from "./testing/shared.ts";
import { readTokenizerFiles, templateOf } from "./tokenizer_files.ts";
import { type ChatMessage, loadTokenizer } from "./tokenizer.ts";

/** What hangs never ends; a busy machine only takes longer. */
const MAX_MS = 20_000;

type Rendered = string | { readonly error: string };
interface Feature {
  readonly template: string;
  readonly out: Rendered;
}
interface Conversation {
  readonly messages: ChatMessage[];
  readonly tools?: unknown[];
}
interface PublicTemplate {
  readonly template: string;
  readonly special_tokens: Record<string, string>;
}

async function oracle() {
  return JSON.parse(await Deno.readTextFile(shared("oracles/tokenizers/chat_templates.json")));
}

function tryRender(template: ChatTemplate, variables: Record<string, unknown>): string | null {
  try {
    return template.render(variables);
  } catch (error) {
    assert.ok(error instanceof OatmillError && error.code === "invalid_chat_template", String(error));
    return null;
  }
}

oracleTest("public chat templates render and refuse as recorded", "oracles/tokenizers", async () => {
  const { templates, message_lists, rendered } = await oracle();
  for (const [name, { template, special_tokens }] of Object.entries<PublicTemplate>(templates)) {
    const compiled = new ChatTemplate(template);
    for (const [list, input] of Object.entries<Conversation>(message_lists)) {
      const { messages, tools = null } = input;
      const wanted: Rendered[] = rendered[name][list];
      wanted.forEach((want, i) => {
        const variables = { ...special_tokens, messages, tools, add_generation_prompt: i === 1 };
        const text = tryRender(compiled, variables);
        assert.equal(text, typeof want === "string" ? want : null, `${name}, ${list}, ${i}`);
      });
    }
  }
});

/** What @huggingface/jinja 0.5.11 does differently; none of it is met in the public templates above. */
const KNOWN_GAPS: Readonly<Record<string, string>> = {
  map_select: "prints lists as JSON",
  print_types: "prints none as nothing, lists as JSON, tuples not at all",
  undefined_attr_error: "an attribute of an undefined value is undefined, not an error",
  raw: "has no raw blocks",
  chained_compare: "has no chained comparison",
  sandbox_escape: "dunder attributes are undefined, not an error",
};

oracleTest("template features give what Jinja gives", "oracles/tokenizers", async () => {
  const { features, message_lists } = await oracle();
  const { messages } = message_lists[features.message_list];
  for (const [name, { template, out }] of Object.entries<Feature>(features.cases)) {
    if (Object.hasOwn(KNOWN_GAPS, name)) continue;
    let text: string | null = null;
    try {
      text = tryRender(new ChatTemplate(template), { messages });
    } catch (error) {
      assert.ok(error instanceof OatmillError, name);
    }
    assert.equal(text, typeof out === "string" ? out : null, name);
  }
});

oracleTest("rendered chats have the recorded ids", "data/tokenizers", async () => {
  const { token_ids_of_rendered, message_lists } = await oracle();
  const tokenizer = loadTokenizer((await readTokenizerFiles(shared("data/tokenizers/llama3").pathname))!);
  for (const [list, ids] of Object.entries<number[]>(token_ids_of_rendered.llama3_tokenizer_config)) {
    const text = tokenizer.renderChat(message_lists[list].messages, { addGenerationPrompt: true });
    assert.deepEqual(tokenizer.encode(text, { addSpecialTokens: false }), ids, list);
  }
});

oracleTest("hostile chat templates end in time with an error", "oracles/attacks/chat_template", async () => {
  const { files } = JSON.parse(await Deno.readTextFile(shared("oracles/attacks/MANIFEST.json")));
  for (const { file, expect, error_should_mention } of files) {
    if (!file.startsWith("chat_template/")) continue;
    const { chat_template } = JSON.parse(await Deno.readTextFile(shared(`oracles/attacks/${file}`)));
    const start = performance.now();
    let error: unknown = null;
    try {
      new ChatTemplate(templateOf(chat_template)!).render({
        messages: [{ role: "user", content: "Hi" }],
        bos_token: "<s>",
      });
    } catch (thrown) {
      error = thrown;
    }
    assert.ok(performance.now() - start < MAX_MS, `${file} took ${performance.now() - start} ms`);
    if (expect === "refuse") assert.ok(error, `${file} was accepted`);
    if (error === null) continue;
    assert.ok(error instanceof OatmillError && error.code === "invalid_chat_template", `${file}: ${error}`);
    assert.match(error.message, new RegExp(error_should_mention, "i"), file);
  }
});

Deno.test("a list that doubles itself meets the limit", () => {
  const source =
    "{% set ns = namespace(x=[1]) %}{% for i in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}";
  assert.equal(tryRender(new ChatTemplate(source), {}), null);
});

Deno.test("render() allows long conversations", () => {
  const source =
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] | trim + '\\n' }}{% endfor %}";
  const messages = Array.from({ length: 2000 }, () => ({ role: "user", content: "word ".repeat(200) }));
  assert.equal(new ChatTemplate(source).render({ messages }).length, 2000 * ("<|user|>\n".length + 999));
});
