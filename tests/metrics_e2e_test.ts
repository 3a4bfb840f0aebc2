/** What the server measures of itself, beside what its client measures. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, it } from "@std/testing/bdd";
import OpenAI from "openai";
import { quantileBetween, total } from "./metrics_text.ts";
import { ROOT } from "./server_process.ts";
import { uploadModel, useServer } from "./server_suite.ts";

const MODEL = "stories";
const BUNDLED = join(ROOT, "models/default");

describe("metrics", () => {
  const server = useServer();

  it("measures at /metrics what its client measures", async () => {
    const files: Record<string, Uint8Array<ArrayBuffer>> = {};
    for (const { name } of Deno.readDirSync(BUNDLED)) {
      if (/^(config|tokenizer|tokenizer_config)\.json$|\.safetensors$/.test(name)) {
        files[name] = await Deno.readFile(join(BUNDLED, name));
      }
    }
    const recipe = { method: "none", values: "int8", rounding: "nearest", evaluate: { tokens: 64 } };
    const job = await uploadModel(server(), files, { name: MODEL, recipe });
    assert.deepEqual([job.status, job.error], ["succeeded", null]);
    const client = new OpenAI({ baseURL: `${server().url}/v1`, apiKey: "none", maxRetries: 0 });
    const scrape = async () => await (await server().get("/metrics")).text();
    const before = await scrape();
    const firstMs: number[] = [], used = { prompt: 0, completion: 0, cached: 0 };
    for (let i = 0; i < 40; i++) {
      const start = performance.now();
      const stream = await client.completions.create({
        model: MODEL,
        prompt: `${i} times ${"she looked at the sky and ".repeat(i % 5)}`,
        max_tokens: 4 + i % 3,
        stream: true,
        stream_options: { include_usage: true },
      });
      let first: number | null = null;
      for await (const { choices, usage } of stream) {
        if (choices.length > 0) first ??= performance.now() - start;
        used.prompt += usage?.prompt_tokens ?? 0;
        used.completion += usage?.completion_tokens ?? 0;
        used.cached += usage?.prompt_tokens_details?.cached_tokens ?? 0;
      }
      firstMs.push(first!);
    }
    const after = await scrape();
    const labels = { gen_ai_request_model: MODEL, gen_ai_operation_name: "text_completion" };
    const rise = (name: string) => total(after, name, labels) - total(before, name, labels);
    assert.equal(rise("gen_ai_server_request_duration_count"), 40);
    assert.equal(rise("oatmill_prompt_tokens_total"), used.prompt);
    assert.equal(rise("oatmill_output_tokens_total"), used.completion);
    assert.equal(rise("oatmill_cached_tokens_total"), used.cached);
    const p50 = quantileBetween(before, after, { name: "gen_ai_server_time_to_first_token", labels, q: 0.5 });
    const clientP50 = firstMs.sort((a, b) => a - b)[20];
    assert.ok(Math.abs(p50 * 1000 - clientP50) < 5, `server ${p50 * 1000} ms, client ${clientP50} ms`);
  });
});
