/** The whole chain on the bundled model, in small. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { OatmillError } from "../errors.ts";
import { openArtifact } from "../models/formats/artifact.ts";
import { readInsight } from "../models/formats/insight_file.ts";
import type { RecipeInput } from "../models/recipe.ts";
import { compress } from "./pipeline.ts";
import type { CompressProgress, CompressResult, CompressStep } from "./types.ts";

const SOURCE = new URL("../models/default", import.meta.url).pathname;
/** Perplexity of the compressed model over the dense one on the model's own text; measured 1.01-1.03 at rate 0.4. */
const PERPLEXITY_BOUND = 1.1;
/** The same with S in 4 bits to nearest. Measured 1.09-1.10. */
const INT4_BOUND = 1.25;
/** The same at N:8 with mean N 4: half of the weights. Measured 1.31. */
const MIXED_BOUND = 1.5;

const recipe = (over: RecipeInput = {}): RecipeInput => ({
  rate: 0.4,
  iterations: 2,
  calibration: { sequences: 8, length: 64, ...(over.calibration ?? {}) },
  evaluate: { tokens: 256 },
  ...Object.fromEntries(Object.entries(over).filter(([key]) => key !== "calibration")),
});

async function inFolder(use: (dir: string) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    await use(dir);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

const meanRate = ({ header }: Pick<CompressResult, "header">) => {
  const size = ({ shape }: { shape: readonly number[] }) => shape[0] * shape[1];
  const all = header.layers.reduce((n, l) => n + size(l), 0);
  return header.layers.reduce((n, l) => n + l.rate * size(l), 0) / all;
};

/** Steps tell of each block's parts, and add up to what the phases took but for those below a millisecond. */
function assertSteps(steps: readonly CompressStep[], { phases }: CompressResult): void {
  const compressed = steps.filter(({ block }) => block?.pass === "compress");
  for (let i = 0; i < 6; i++) {
    const found = new Set(compressed.filter(({ block }) => block!.index === i).map(({ phase }) => phase));
    assert.ok(found.has("compress") && found.has("write"), `block ${i}: ${[...found]}`);
  }
  const sum = steps.reduce((all, { startMs, endMs }) => all + (endMs - startMs) / 1000, 0);
  const all = Object.values(phases).reduce((a, b) => a + b, 0);
  assert.ok(sum <= all + 1e-6 && sum > 0.9 * all, `${sum} of ${all} s`);
}

for (
  const [name, over] of Object.entries<RecipeInput>({
    "oatmill, measured, windows, int8": {},
    "oatmill, measured, sequential": { calibration: { statistics: "sequential" } },
    "oats, owl, windows, int8": { method: "oats", allocation: "owl" },
    "oats, sequential, unstructured, f32": {
      method: "oats",
      pattern: "unstructured",
      values: "f32",
      allocation: "uniform",
      calibration: { statistics: "sequential" },
    },
    "none, int3, feedback": { method: "none", rate: 0, values: "int3", rounding: "feedback" },
    "oatmill, measured, mean of 5 bits": { mean_bits: 5 },
    "wanda, int4": { method: "wanda", rate: 0.375, values: "int4", allocation: "uniform", refine: false },
  })
) {
  Deno.test(`compress() makes a model that works: ${name}`, () =>
    inFolder(async (dir) => {
      const phases = new Set<string>();
      const onProgress = (p: CompressProgress) => void phases.add(p.phase);
      const out = join(dir, "out");
      const steps: CompressStep[] = [], onStep = (step: CompressStep) => void steps.push(step);
      const options = { source: SOURCE, out, recipe: recipe(over), threads: 2 };
      const result = await compress({ ...options, onProgress, onStep });
      assertSteps(steps, result);
      const artifact = await openArtifact(out);
      const { perplexity, layers, bytes, denseBytes } = artifact.header;
      assert.deepEqual(perplexity, result.header.perplexity);
      assert.ok(perplexity!.compressed < perplexity!.dense * PERPLEXITY_BOUND, JSON.stringify(perplexity));
      assert.equal(layers.length, 6 * 7);
      assert.ok(
        Math.abs(meanRate(result) - result.header.recipe.rate) < 0.02,
        `mean rate ${meanRate(result)}`,
      );
      assert.ok(layers.every((l) => l.error >= 0 && l.error < 1));
      if (result.header.recipe.values !== "f32") assert.ok(bytes < denseBytes);
      const insight = await readInsight(artifact);
      assert.deepEqual(insight!.layers.map((l) => l.name), layers.map((l) => l.name));
      assert.ok(insight!.blocks.every((b) => b.outliers![0] > b.outliers![3]));
      for (const { name, inputError, scaled, windows } of insight!.layers) {
        assert.equal(inputError === null, !result.header.recipe.refine, name);
        assert.ok(scaled!.effectiveRank > 1 && scaled!.largest > 0, name);
        const { values, method } = result.header.recipe;
        assert.equal(windows === null, values === "f32" || method === "none", name);
      }
      assert.ok(result.seconds > 0 && result.peakRssBytes > 0 && result.phases.compress! > 0);
      for (const phase of ["sample", "calibrate", "compress", "evaluate"]) {
        assert.ok(phases.has(phase), phase);
      }
    }));
}

Deno.test("compress() serves N:M masks in windows, N mixed by OWL, also from H without a refit", () =>
  inFolder(async (dir) => {
    const { header } = await compress({
      source: SOURCE,
      out: join(dir, "out"),
      recipe: recipe({
        ...{ method: "sparsegpt", pattern: "4:8", rate: undefined, refine: false },
        allocation: { kind: "owl", lambda: 0.2 },
      }),
    });
    const { layers, tensors, perplexity } = header;
    assert.ok(perplexity!.compressed < perplexity!.dense * MIXED_BOUND, JSON.stringify(perplexity));
    const counts = layers.map(({ kept }) => Math.round(8 * kept));
    layers.forEach(({ kept, name }, i) =>
      assert.ok(Math.abs(8 * kept - counts[i]) < 0.01, `${name}: ${kept}`)
    );
    assert.equal(counts.reduce((a, b) => a + b, 0), 4 * layers.length);
    assert.ok(new Set(counts).size > 1);
    assert.ok(tensors.some(({ format }) => format.kind === "windows"));
  }));

Deno.test("compress() leaves layers dense that the recipe names, and the rate of the whole as it is", () =>
  inFolder(async (dir) => {
    const out = join(dir, "out");
    const result = await compress({
      source: SOURCE,
      out,
      recipe: recipe({ dense: ["v", "o"], values: "int4", allocation: "uniform" }),
    });
    const { layers, tensors, perplexity } = result.header;
    assert.ok(Math.abs(meanRate(result) - 0.4) < 0.02, `mean rate ${meanRate(result)}`);
    assert.ok(perplexity!.compressed < perplexity!.dense * INT4_BOUND, JSON.stringify(perplexity));
    const formats = new Map(tensors.map(({ name, format }) => [name, format.kind]));
    for (const { name, rate, kept, error } of layers) {
      const stays = /\.[vo]$/.test(name);
      assert.equal(formats.get(`${name}.w`), stays ? "q8" : undefined, name); // int4 values leave dense layers at int8
      assert.equal(formats.get(`${name}.s`), stays ? undefined : "windows", name);
      if (stays) assert.ok(rate === 0 && kept === 1 && error < 0.001, name);
      else assert.ok(rate > 0.4, name);
    }
  }));

Deno.test("compress() meets a budget of bytes, and says the rate that came out", () =>
  inFolder(async (dir) => {
    const bytes = 3_600_000;
    const { header } = await compress({
      source: SOURCE,
      out: join(dir, "out"),
      recipe: recipe({ budget: { bytes }, dense: ["k"] }),
    });
    assert.ok(header.bytes <= bytes && header.bytes > 0.97 * bytes, `${header.bytes}`);
    assert.ok(Math.abs(meanRate({ header }) - header.recipe.rate) < 1e-9);
    assert.ok(header.layers.filter(({ name }) => name.endsWith(".k")).every(({ rate }) => rate === 0));
    assert.ok(header.perplexity!.compressed < header.perplexity!.dense * PERPLEXITY_BOUND);
  }));

Deno.test("compress() refuses to leave so much dense that the rate cannot be met", () =>
  inFolder(async (dir) => {
    const dense = ["gate", "up", "down"] as const;
    const work = compress({ source: SOURCE, out: join(dir, "out"), recipe: recipe({ dense: [...dense] }) });
    await assert.rejects(work, hasCode("invalid_recipe"));
    assert.deepEqual(left(dir), []);
  }));

Deno.test("compress() without compression only packs", () =>
  inFolder(async (dir) => {
    const out = join(dir, "out");
    const { header } = await compress({
      source: SOURCE,
      out,
      recipe: recipe({ method: "none", values: "int8" }),
    });
    assert.ok(header.layers.every((l) => l.rate === 0 && l.kept === 1 && l.error < 0.001));
    const { dense, compressed } = header.perplexity!;
    assert.ok(Math.abs(compressed / dense - 1) < 0.02, `${compressed} against ${dense}`);
  }));

Deno.test("compress() is repeatable by seed, with and without memory for its hidden states", () =>
  inFolder(async (dir) => {
    const text = join(dir, "text.txt");
    await Deno.writeTextFile(
      text,
      "Once upon a time, there was a little girl named Lily. She liked to play. ".repeat(200),
    );
    const run = async (name: string, workMemoryBytes?: number) => {
      const options = { source: SOURCE, out: join(dir, name), threads: 2, workMemoryBytes };
      return (await compress({ ...options, recipe: recipe({ calibration: { text } }) })).header;
    };
    const a = await run("a"), b = await run("b", 0);
    assert.equal(a.files["model.safetensors"].sha256, b.files["model.safetensors"].sha256);
    assert.deepEqual(left(dir).sort(), ["a", "b", "text.txt"]);
  }));

const left = (dir: string) => [...Deno.readDirSync(dir)].map((e) => e.name);
const hasCode = (code: string) => (e: unknown) => e instanceof OatmillError && e.code === code;

Deno.test("compress() leaves nothing behind when cancelled, at any phase", () =>
  inFolder(async (dir) => {
    for (const phase of ["sample", "calibrate", "evaluate"]) {
      const controller = new AbortController();
      const work = compress({
        source: SOURCE,
        out: join(dir, "out"),
        recipe: recipe({ iterations: 1, refine: false }),
        workMemoryBytes: 0,
        signal: controller.signal,
        onProgress: (p) => p.phase === phase && controller.abort(),
      });
      await assert.rejects(work, hasCode("cancelled"));
      assert.deepEqual(left(dir), []);
    }
  }));

Deno.test("compress() refuses bad recipes, bad sources and existing folders", () =>
  inFolder(async (dir) => {
    const out = join(dir, "out");
    await assert.rejects(compress({ source: SOURCE, out, recipe: { rate: 2 } }), hasCode("invalid_recipe"));
    await assert.rejects(
      compress({ source: SOURCE, out, recipe: recipe({ calibration: { text: join(dir, "no.txt") } }) }),
      hasCode("invalid_recipe"),
    );
    await assert.rejects(compress({ source: join(dir, "no"), out, recipe: {} }), OatmillError);
    assert.deepEqual(left(dir), []);
    await Deno.mkdir(out);
    await assert.rejects(compress({ source: SOURCE, out, recipe: {} }), hasCode("conflict"));
    assert.deepEqual(left(dir), ["out"]);
  }));

/** A copy of the bundled model (bf16) with every value of one tensor replaced. */
async function damagedModel(dir: string, tensor: string, bits: number): Promise<string> {
  const source = join(dir, "source");
  await Deno.mkdir(source);
  for (const { name } of Deno.readDirSync(SOURCE)) {
    await Deno.copyFile(join(SOURCE, name), join(source, name));
  }
  const path = join(source, "model.safetensors"), bytes = await Deno.readFile(path);
  const view = new DataView(bytes.buffer), length = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const [from, to] = header[tensor].data_offsets;
  for (let at = 8 + length + from; at < 8 + length + to; at += 2) view.setUint16(at, bits, true);
  await Deno.writeFile(path, bytes);
  return source;
}

for (
  const [what, tensor, bits, error, started] of [
    ["weights before any work", "model.layers.5.mlp.down_proj.weight", 0x7fc0, {
      code: "non_finite_weights",
      message: /model\.layers\.5\.mlp\.down_proj\.weight/,
    }, false],
    ["activations by block and input", "model.layers.1.post_attention_layernorm.weight", 0x7149, { // 1e30
      code: "non_finite_activations",
      message: /block 1: column 0 of input "mlp" \(of gate, up\)/,
    }, true],
  ] as const
) {
  Deno.test(`compress() refuses non-finite ${what}`, () =>
    inFolder(async (dir) => {
      const text = join(dir, "text.txt"), phases = new Set<string>();
      await Deno.writeTextFile(text, "Once upon a time there was a little girl. ".repeat(200));
      const work = compress({
        source: await damagedModel(dir, tensor, bits),
        out: join(dir, "out"),
        recipe: recipe({ method: "wanda", calibration: { text, sequences: 2 } }),
        onProgress: (p) => void phases.add(p.phase),
      });
      await assert.rejects(work, error);
      assert.equal(phases.has("sample"), started);
      assert.deepEqual(left(dir).sort(), ["source", "text.txt"]);
    }));
}
