/** The real language model on the exact path: a GGUF file through reader, tokenizer, chat template and engine. */
import assert from "node:assert/strict";
import { openModel } from "./open_model.ts";
import { needTokenizer } from "./open_model.ts";
import { GREEDY } from "./types.ts";

const DIR = new URL("../../shared/models/", import.meta.url).pathname;
const MODEL = `${DIR}SmolLM2-135M-Instruct.Q4_1.gguf`;
const WIKITEXT = new URL("../../shared/data/text/wikitext2_wiki.test.raw", import.meta.url).pathname;
/** Mean over the first 512 tokens of WikiText-2's test part, by transformers in f32. */
const WINDOW_NLL = 3.01122;
const NLL_TOLERANCE = 1e-4;
/** The reference ran on weights dequantised by other code: f32 rounding over 30 blocks, logits up to 30. */
const LOGITS_TOLERANCE = 2e-2;
/** Greedy tokens are compared exactly only where the reference's two best logits are further apart than the noise. */
const CLEAR_TOKENS = 24;

interface Case {
  text: string;
  ids: number[];
  top10_ids: number[];
  top10_logits: number[];
  greedy48_ids: number[];
}

const present = (() => {
  try {
    return Deno.statSync(MODEL).isFile;
  } catch {
    return false;
  }
})();

Deno.test({
  name: "SmolLM2-135M-Instruct equals its recorded logits, tokens and perplexity (needs ../shared/models)",
  ignore: !present,
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const expected = JSON.parse(await Deno.readTextFile(`${DIR}expected.json`));
    const model = await openModel(MODEL, { values: "f32", contextLength: 2048, maxSequences: 4 });
    const { engine } = model;
    const tokenizer = needTokenizer(model);
    try {
      for (const c of expected.prompts as Case[]) {
        assert.deepEqual(tokenizer.encode(c.text, { addSpecialTokens: false }), c.ids);
        const logits = await engine.logits(c.ids);
        c.top10_ids.forEach((id, i) => {
          const difference = Math.abs(logits[id] - c.top10_logits[i]);
          assert.ok(
            difference < LOGITS_TOLERANCE,
            `"${c.text.slice(0, 20)}": logit of ${id} differs by ${difference}`,
          );
        });
        const tokens: number[] = [];
        const request = {
          promptIds: c.ids,
          maxTokens: CLEAR_TOKENS,
          stopIds: [],
          sampling: GREEDY,
          logprobs: null,
        };
        for await (const e of engine.generate(request)) if (e.type === "token") tokens.push(e.token);
        assert.deepEqual(tokens, c.greedy48_ids.slice(0, CLEAR_TOKENS));
      }
      const text = (await Deno.readTextFile(WIKITEXT)).slice(0, 4000).replaceAll("\r\n", "\n");
      const nll = await engine.score(tokenizer.encode(text, { addSpecialTokens: false }).slice(0, 512));
      const mean = nll.reduce((a, b) => a + b) / nll.length;
      assert.ok(Math.abs(mean - WINDOW_NLL) < NLL_TOLERANCE, `mean nll of the first window: ${mean}`);
    } finally {
      await engine.close();
    }
  },
});
