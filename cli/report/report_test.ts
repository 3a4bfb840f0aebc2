import assert from "node:assert/strict";
import { parseHTML } from "linkedom";
import type { ArtifactHeader } from "../../models/formats/artifact_header.ts";
import { insightSample } from "../../models/testing/insight.ts";
import { recipeSchema } from "../../models/recipe.ts";
import { SYNTHETIC_SPECS } from "../../models/synthetic_specs.ts";
import { bytesByKind, layerFigures } from "./figures.ts";
import { reportHtml } from "./report.ts";

const ATTACK = `<script>alert("1")</script>"'><img src=http://evil.example/x onerror=alert(1)>`;
const spec = SYNTHETIC_SPECS.tiny;
const insight = insightSample({ blocks: 2 });

function headerOf(name: string): ArtifactHeader {
  const tensor = (name: string, bytes: number) =>
    ({ name, bytes, offset: 0, shape: [1, bytes], format: { kind: "q8" } }) as const;
  return {
    format: 2,
    oatmill: "test",
    created: "2026-01-01T00:00:00Z",
    name,
    spec,
    recipe: recipeSchema.parse({ calibration: { text: name } }),
    source: { file: name, format: "gguf", tensorBytes: 1 },
    blockChunks: 1,
    tensors: [
      tensor("embedding", 4_000_000),
      ...insight.layers.flatMap((l) => [
        tensor(`${l.name}.s`, 300),
        tensor(`${l.name}.u`, 20),
        tensor(`${l.name}.v`, 10),
      ]),
      tensor("finalNorm", 7),
    ],
    layers: insight.layers.map(({ name }, i) => ({
      ...{
        name,
        shape: [8, 8],
        rate: 0.3 + i / 100,
        rank: 2,
        kept: 0.5,
        bits: 8,
        values: "int5",
        error: 0.01,
      },
    })) as unknown as ArtifactHeader["layers"],
    perplexity: { dense: 20.5, compressed: 22.25, tokens: 100, text: name },
    bytes: 5_000_000,
    denseBytes: 9_000_000,
    files: {},
  };
}

const report = (name: string) => reportHtml({ name, spec, parameters: 1e6, header: headerOf(name), insight });

Deno.test("a report has a labelled chart and a table for everything that is known", async () => {
  const text = await report("tiny");
  const { document } = parseHTML(text);
  const titles = [...document.querySelectorAll("section h2")].map((h) => h.textContent);
  for (
    const title of ["Perplexity", "Bytes", "Outliers of each block", "Rate, rank and kept share", "Errors"]
  ) {
    assert.ok(titles.includes(title), title);
  }
  for (const section of document.querySelectorAll("section")) {
    const title = section.querySelector("h2")!.textContent;
    const charts = [...section.querySelectorAll("svg[role=img]")];
    assert.ok(charts.length > 0 && charts.every((svg) => svg.getAttribute("aria-label")), title);
    assert.ok(section.querySelectorAll("table tbody tr").length > 0, title);
  }
  const rates = document.querySelector('table[aria-label="Rate, rank and kept share"]')!;
  assert.equal(rates.querySelectorAll("tbody tr").length, insight.layers.length);
  assert.match(
    rates.querySelector("tbody tr")!.textContent,
    /block\.0\.q\s*0\.3\d*\s*2\s*0\.5\d*\s*8\s*int5\s*330\s*0\.75/,
  );
  assert.match(text, /22\.25/);
  assert.match(text, /&quot;rate&quot;: 0\.\d/);
});

Deno.test("a report needs no network and runs no script", async () => {
  const text = await report("tiny");
  assert.doesNotMatch(text, /https?:|\/\/[a-z]|@import|url\(|src=|<link|<script|<iframe|javascript:/i);
  assert.match(text, /Content-Security-Policy" content="default-src &#39;none&#39;;|default-src 'none'/);
});

Deno.test("names that come from the artifact are text wherever they stand", async () => {
  const attacked: typeof insight = structuredClone(insight);
  attacked.calibration!.text = ATTACK;
  for (const list of [attacked.layers, attacked.inputs]) list[0].name = `block.0.${ATTACK}`;
  const header = headerOf(ATTACK);
  const layers = header.layers.map((l, i) => i === 0 ? { ...l, name: `block.1.${ATTACK}` } : l);
  const tensors = [...header.tensors, { ...header.tensors[0], name: ATTACK }];
  const evilSpec = { ...spec, family: ATTACK, architecture: ATTACK };
  const text = await reportHtml({
    name: ATTACK,
    spec: evilSpec,
    parameters: 1,
    header: { ...header, spec: evilSpec, layers, tensors, created: ATTACK },
    insight: attacked,
  });
  const { document } = parseHTML(text);
  assert.equal(document.querySelectorAll("script, img, iframe").length, 0);
  assert.doesNotMatch(text.replaceAll(/="[^"]*"/g, ""), /<script|<img/i, "not even beside quoted attributes");
  assert.equal(document.querySelector("h1")!.textContent, ATTACK);
  assert.ok([...document.querySelectorAll("svg text")].some((t) => t.textContent.includes("<script>")));
  for (const element of document.querySelectorAll("*")) {
    for (const { name } of element.attributes) assert.doesNotMatch(name, /^on/, element.tagName);
  }
});

Deno.test("a report says what it knows of a model without insight, or without an artifact", async () => {
  const titles = (text: string) =>
    [...parseHTML(text).document.querySelectorAll("h2")].map((h) => h.textContent);
  const old = await reportHtml({ name: "old", spec, parameters: 1, header: headerOf("old"), insight: null });
  assert.deepEqual(titles(old), ["Recipe", "Perplexity", "Bytes", "Rate, rank and kept share", "Errors"]);
  const dense = await reportHtml({ name: "dense", spec, parameters: 1, header: null, insight });
  assert.ok(titles(dense).includes("Singular values") && !titles(dense).includes("Bytes"));
  const bare = await reportHtml({ name: "bare", spec, parameters: 1, header: null, insight: null });
  assert.deepEqual(titles(bare), []);
});

Deno.test("layerFigures() tells layers of experts apart, with their bytes", () => {
  const header = headerOf("tiny"), [layer] = header.layers;
  const names = ["block.1.experts.0.up", "block.1.experts.12.up"];
  const figures = layerFigures({
    ...header,
    layers: names.map((name) => ({ ...layer, name })),
    tensors: names.map((name, i) => ({ ...header.tensors[0], name: `${name}.s`, bytes: 10 + i })),
  }, null);
  assert.deepEqual(figures.map(({ block, layer, bytes }) => [block, layer, bytes]), [
    [1, "experts.0.up", 10],
    [1, "experts.12.up", 11],
  ]);
});

Deno.test("layerFigures() joins header and insight by the layer's name", () => {
  const [first] = layerFigures(headerOf("tiny"), insight);
  assert.deepEqual(
    [first.name, first.block, first.layer, first.bytes, first.inputError, first.filled, first.effectiveRank],
    ["block.0.q", 0, "q", 330, 0.125, 0.75, 40.5],
  );
  assert.equal(layerFigures(null, insight)[0].rate, null);
  assert.equal(layerFigures(headerOf("tiny"), null)[0].inputError, null);
});

Deno.test("bytesByKind() counts every byte once", () => {
  const { tensors } = headerOf("tiny");
  const kinds = bytesByKind(tensors);
  assert.equal(kinds.reduce((n, k) => n + k.bytes, 0), tensors.reduce((n, t) => n + t.bytes, 0));
  assert.deepEqual(kinds.map((k) => k.kind), [
    "embedding",
    "sparse S",
    "low-rank U and V",
    "norms, biases, scales",
  ]);
});
