import assert from "node:assert/strict";
import fc from "fast-check";
import { parseHTML } from "linkedom";
import { comparisonHtml, comparisonMarkdown } from "../cli/report/comparison.ts";
import { modelReport, type ModelRow, paretoFront } from "./model_report.ts";

const SOURCE = new URL("../models/default/", import.meta.url).pathname;
const TEXT = "Once there was a girl who had a red ball. She ran to the park and saw a dog. ".repeat(30);

Deno.test("paretoFront() keeps rows that no other one beats, cheapest first", () => {
  const size = fc.integer({ min: 1, max: 9 });
  fc.assert(
    fc.property(fc.array(fc.record({ bytes: size, perplexity: size }), { minLength: 1 }), (points) => {
      const rows = points as unknown as ModelRow[], front = paretoFront(rows, (r) => r.bytes);
      assert.ok(front.length > 0);
      for (const [i, row] of rows.entries()) {
        const beaten = rows.some((r) =>
          r.bytes <= row.bytes && r.perplexity <= row.perplexity &&
          r.bytes + r.perplexity < row.bytes + row.perplexity
        );
        assert.equal(front.includes(i), !beaten);
      }
      front.forEach((i, k) => assert.ok(k === 0 || rows[i].bytes >= rows[front[k - 1]].bytes));
    }),
  );
});

Deno.test("modelReport() measures a model in several forms and an artifact, and is shown as page and table", async () => {
  const folder = await Deno.makeTempDir(), file = `${folder}/text.txt`;
  await Deno.writeTextFile(file, TEXT);
  const options = {
    models: [SOURCE],
    rows: ["dense f32", "dense int8", "fast 0.5"] as const,
    calibration: { sequences: 2, length: 32 },
    folder,
    text: { content: TEXT, file, maxTokens: 256, window: 64 },
    tasks: new Map([["balls", [{ context: "She had a red", choices: [" ball", " xylophone"], answer: 0 }]]]),
    promptTokens: 16,
    decodeTokens: 4,
    streams: 2,
    repeats: 1,
    threads: 1,
  };
  try {
    const report = await modelReport(options);
    const [dense, int8, fast] = report.rows;
    assert.deepEqual(report.rows.map((r) => r.name), [...options.rows]);
    assert.equal(report.baseline, "dense int8");
    assert.deepEqual(int8.ratio, { prefill: 1, decode: 1, streams: 1 });
    assert.ok(dense.as_f16 && dense.bytes > int8.bytes && fast.bytes > 0);
    assert.ok(Math.abs(int8.perplexity / dense.perplexity - 1) < 0.1);
    assert.ok(fast.perplexity > dense.perplexity);
    assert.deepEqual(Object.keys(dense.tasks), ["balls"]);
    for (const { speed, seconds } of report.rows) {
      assert.ok(Object.values(speed).every((n) => n > 0) && seconds! > 0);
    }
    const again = await modelReport({ ...options, models: [int8.artifact] });
    assert.deepEqual([again.rows[0].perplexity, again.rows[0].seconds], [int8.perplexity, null]);
    const kept = (await Deno.readTextFile(`${folder}/quality.jsonl`)).trim().split("\n");
    assert.equal(kept.length, 3, "what was measured once is not measured again");

    assert.match(comparisonMarkdown(report), /1 of balls\. dense f32: computed in f32; the bytes are/);
    const lines = comparisonMarkdown(report).split("\n");
    assert.deepEqual(
      lines.slice(4, 7).map((l) => l.split(" | ")[0].trim()),
      options.rows.map((name) => `| ${name}`),
    );
    assert.equal(new Set(lines.slice(2, 7).map((l) => l.split(" | ").length)).size, 1);
    const page = await comparisonHtml(report);
    assert.doesNotMatch(page, /<script|https?:\/\/(?!www\.w3\.org)/);
    const { document } = parseHTML(page);
    assert.equal(document.querySelectorAll("svg circle").length, 9);
    assert.equal(document.querySelectorAll("table").length, 4);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
