/**
 * Every family through compression: the calibration forward against the recorded likelihoods, and the artifact's S + L as
 * the kernels serve it against the dense product of the same S + L in f64.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { loadEngine } from "../engine/engine.ts";
import { openModel } from "../engine/open_model.ts";
import { CONSTS_BYTES } from "../kernels/abi.ts";
import { Arena } from "../kernels/arena.ts";
import { chunkCount, formatArgument, formatName, groupCount, type Shape2 } from "../kernels/layout.ts";
import { bindKernels, loadKernelModules, probeEncoding, writeConstants } from "../kernels/load.ts";
import { unpack } from "../kernels/packers.ts";
import { referenceQuantize, type Tile } from "../kernels/reference.ts";
import type { Checkpoint, Weight, WeightRole } from "../models/checkpoint.ts";
import { openArtifact } from "../models/formats/artifact.ts";
import type { TensorEntry } from "../models/formats/artifact_header.ts";
import type { PackedModel } from "../models/packed.ts";
import { openCheckpoint } from "../models/open.ts";
import { IMAGE_VECTORS, ImageInput } from "../models/image_input.ts";
import { inputOf, type LinearName } from "../models/spec.ts";
import { DECODER_ORACLES } from "../models/testing/decoder_oracles.ts";
import { ENCODER_ORACLES, type EncoderCase, encoderCases } from "../models/testing/encoder_oracles.ts";
import { ReferenceModel } from "../models/testing/reference_forward.ts";
import { oracleTest, shared as sharedFile } from "../models/testing/shared.ts";
import { type Answer, denseAnswers } from "./evaluation/encoder_agreement.ts";
import {
  densePerplexity,
  embed,
  normaliseRows,
  readBlock,
  readEmbedding,
  type Residual,
  runBlockOver,
} from "./forward/dense_forward.ts";
import { type BlockJob, runBlock } from "./forward/block_job.ts";
import { runPatches } from "./forward/patch_job.ts";
import { type HeadJob, runHead } from "./forward/head_job.ts";
import type { LinalgPool } from "./linalg/pool.ts";
import { LinalgRuntime } from "./linalg/runtime.ts";
import { compress } from "./pipeline.ts";
import { shared, toShared } from "./statistics.ts";

/** As the oracles' README suggests for f32: `sum_nll`. */
const RECIPE = {
  method: "oats",
  allocation: "owl",
  rate: 0.5,
  iterations: 2,
  evaluate: { tokens: 64 },
} as const;
const NLL_TOLERANCE = 2e-3;
/** The same for encoders. */
const ENCODER_TOLERANCE = 1e-3;
/** A block passed without statistics. */
const PLAIN = { collect: false, momentSequences: 0, write: true, sink: false };
/** Of the linear kernels, in parts of the summed magnitudes (kernels_oracle_test.ts). */
const LINEAR_TOLERANCE = 2e-6;
/**
 * ||logits - f64|| / ||f64||: inputs of all layers rounded to 8 bits. Measured 0.7 to 3.5 %, 5 to 10 % where longrope makes
 * attention sharp; a layer, scale or norm in the wrong place gives more than 50 %.
 */
const SERVED_BOUND = 0.2;

interface Expected {
  readonly prompts: Readonly<Record<string, { readonly ids: number[] }>>;
  readonly nll: { readonly ids: number[]; readonly sum_nll: number };
}

/** Sum of the negative log-likelihoods of a sequence, by the calibration forward. */
async function calibrationNll(checkpoint: Checkpoint, ids: readonly number[]): Promise<number> {
  const linalg = await LinalgRuntime.create();
  const run = (job: BlockJob | HeadJob) =>
    job.kind === "block" ? runBlock(job, linalg) : runHead(job, linalg);
  const pool = { threads: 1, concurrent: () => 1, run } as unknown as LinalgPool; // here, without its workers
  const sequences = [Int32Array.from(ids)];
  const residual = embed(await readEmbedding(checkpoint), sequences, shared);
  const plain = { checkpoint, pool, ...PLAIN };
  for (let block = 0; block < checkpoint.spec.blocks; block++) {
    await runBlockOver(residual, await readBlock(checkpoint, block), { ...plain, block });
  }
  const { perplexity, tokens } = await densePerplexity(residual, sequences, { checkpoint, pool });
  await linalg.close();
  return Math.log(perplexity) * tokens;
}

type Tensors = ReadonlyMap<string, { readonly entry: TensorEntry; readonly bytes: Uint8Array }>;

async function loadTensors(model: PackedModel): Promise<Tensors> {
  const tensors = new Map<string, { entry: TensorEntry; bytes: Uint8Array }>();
  await model.load((entry) => {
    const bytes = new Uint8Array(entry.bytes);
    tensors.set(entry.name, { entry, bytes });
    return bytes;
  });
  return tensors;
}

const shapeOf = ({ shape }: TensorEntry): Shape2 => [shape[0], shape[1]];

/** The values of a tensor; null when there is none of that name. */
function valuesOf(tensors: Tensors, name: string): Float32Array<ArrayBuffer> | null {
  const found = tensors.get(name);
  if (!found) return null;
  const { entry, bytes } = found;
  if (entry.format.kind === "vector") return new Float32Array(bytes.slice().buffer);
  return new Float32Array(unpack(entry.format, bytes, shapeOf(entry)));
}

/** S + U V, with the scales of its input's columns taken into it. */
function denseLayer(tensors: Tensors, role: string): Weight {
  const main = tensors.get(`${role}.s`) ?? tensors.get(`${role}.w`)!, [dOut, dIn] = shapeOf(main.entry);
  const S = valuesOf(tensors, main.entry.name)!,
    U = valuesOf(tensors, `${role}.u`),
    V = valuesOf(tensors, `${role}.v`);
  const [, block, name] = /^(block\.\d+)\.(.+)$/.exec(role)!;
  const scale = valuesOf(tensors, `${block}.${inputOf(name as LinearName)}.scale`);
  const rank = V ? V.length / dIn : 0, data = new Float32Array(dOut * dIn);
  for (let i = 0; i < dOut; i++) {
    for (let j = 0; j < dIn; j++) {
      let sum = S[i * dIn + j];
      for (let r = 0; r < rank; r++) sum += U![i * rank + r] * V![r * dIn + j];
      data[i * dIn + j] = sum * (scale?.[j] ?? 1);
    }
  }
  return { data, shape: [dOut, dIn] };
}

/** The artifact's weights by role, as the reference forward reads them. */
function denseCheckpoint({ spec }: PackedModel, tensors: Tensors): Checkpoint {
  const isLayer = (role: string) => tensors.has(`${role}.s`) || tensors.has(`${role}.w`);
  const source = (role: WeightRole) => role === "head" && spec.tiedEmbeddings ? "embedding" : role;
  return {
    spec,
    path: "artifact",
    format: "safetensors",
    tensorBytes: 0,
    tokenizerFiles: null,
    has: (role) => isLayer(role) || tensors.has(source(role)),
    read(role) {
      if (isLayer(role)) return Promise.resolve(denseLayer(tensors, role));
      const { shape } = tensors.get(source(role))!.entry;
      return Promise.resolve({ data: valuesOf(tensors, source(role))!, shape });
    },
    close() {},
  };
}

const encoding = await probeEncoding();
const arena = new Arena(8 << 20);

/** A packed tensor times inputs in 8 bits, by its kernel and in f64, and the sums of magnitudes. */
async function products(
  { entry, bytes }: { entry: TensorEntry; bytes: Uint8Array },
  tile: Tile,
) {
  const [dOut, dIn] = shapeOf(entry), groups = groupCount(dOut), { format } = entry;
  assert.ok(format.kind !== "vector" && format.kind !== "f32");
  arena.reset();
  const kernels = bindKernels(await loadKernelModules(["base", formatName(format)]), arena.memory);
  const consts = arena.allocate(CONSTS_BYTES), y = arena.allocate(groups * 16);
  writeConstants(arena.memory, consts, encoding);
  const at = [bytes, tile.xa, tile.xb, tile.xs].map((part) => arena.store(part));
  const [w, xa, xb, xs] = at, argument = formatArgument(format, dIn);
  kernels.linear(formatName(format), 1)(
    w,
    xa,
    xb,
    xs,
    y,
    4 * groups,
    groups,
    chunkCount(dIn),
    argument,
    0,
    consts,
  );
  const W = unpack(format, bytes, [dOut, dIn]),
    x = inputsOf(tile, dIn);
  const row = (i: number, f: (product: number) => number) =>
    x.reduce((sum, value, j) => sum + f(W[i * dIn + j] * value), 0);
  return {
    served: arena.floats(y, dOut).slice(),
    exact: Array.from({ length: dOut }, (_, i) => row(i, (p) => p)),
    magnitude: Array.from({ length: dOut }, (_, i) => row(i, Math.abs)),
  };
}

/** What the bytes of view A stand for. */
function inputsOf({ xa, xs }: Tile, dIn: number): number[] {
  return Array.from({ length: dIn }, (_, j) => {
    const byte = encoding.offset === 0 ? xa[j] << 24 >> 24 : xa[j];
    return (byte - encoding.offset) * xs[Math.floor(j / 64)];
  });
}

const tileOf = (x: Float32Array, blockChunks: number): Tile =>
  referenceQuantize(x, {
    cols: x.length,
    batch: 1,
    stride: x.length,
    blockChunks,
    columnScale: null,
    encoding,
  });

/** S x + U (V x) by the kernels is the dense product in f64, each product on the inputs that it is given. */
async function checkLayer(tensors: Tensors, role: string, blockChunks: number): Promise<void> {
  const parts = ["s", "w", "v", "u"].flatMap((part) => tensors.get(`${role}.${part}`) ?? []);
  let low: Float32Array | null = null;
  for (const tensor of parts) {
    const { name, shape: [, dIn] } = tensor.entry;
    const x = name.endsWith(".u")
      ? low!
      : Float32Array.from({ length: dIn }, (_, j) => Math.sin(12.9898 * (j + 1)));
    const { served, exact, magnitude } = await products(tensor, tileOf(x, blockChunks));
    exact.forEach((value, i) =>
      assert.ok(
        Math.abs(served[i] - value) <= LINEAR_TOLERANCE * magnitude[i],
        `${name}: y[${i}] is ${served[i]}, not ${value}`,
      )
    );
    if (name.endsWith(".v")) low = served;
  }
}

/** Token ids to calibrate with: everything that was recorded. */
async function writeCalibration(path: string, { prompts, nll }: Expected): Promise<void> {
  const documents = [...Object.values(prompts).map(({ ids }) => ids), nll.ids, [...nll.ids].reverse()];
  await Deno.writeTextFile(path, JSON.stringify(documents));
}

for (const family of DECODER_ORACLES) {
  oracleTest(
    `${family} is compressed, and served as the dense product of its S + L`,
    `oracles/${family}`,
    async () => {
      const folder = sharedFile(`oracles/${family}/`).pathname, dir = await Deno.makeTempDir();
      try {
        const expected: Expected = JSON.parse(await Deno.readTextFile(join(folder, "expected.json")));
        const checkpoint = await openCheckpoint(folder);
        const nll = await calibrationNll(checkpoint, expected.nll.ids);
        checkpoint.close();
        assert.ok(
          Math.abs(nll - expected.nll.sum_nll) < NLL_TOLERANCE,
          `${nll}, recorded ${expected.nll.sum_nll}`,
        );

        const text = join(dir, "ids.json"), out = join(dir, "out");
        await writeCalibration(text, expected);
        const recipe = {
          ...RECIPE,
          calibration: { text, sequences: 6, length: 32 },
        };
        const { header } = await compress({ source: folder, out, recipe, threads: 1 });
        assert.ok(header.layers.some(({ rate, rank }) => rate > 0.3 && rank > 0));
        const artifact = await openArtifact(out), tensors = await loadTensors(artifact);
        const first = header.layers.filter(({ name }) => name.startsWith("block.0."));
        for (const { name } of first) await checkLayer(tensors, name, artifact.blockChunks);

        const reference = await ReferenceModel.load(denseCheckpoint(artifact, tensors));
        const engine = await loadEngine(artifact, { threads: 1, kvFormat: "f32" });
        for (const { ids } of Object.values(expected.prompts)) {
          const [exact] = reference.logits(ids), served = await engine.logits(ids);
          const size = Math.hypot(...exact), off = Math.hypot(...exact.map((v, i) => v - served[i])) / size;
          assert.ok(off < SERVED_BOUND, `${ids.length} tokens: off by ${off}`);
        }
        await engine.close();
      } finally {
        await Deno.remove(dir, { recursive: true });
      }
    },
  );
}

/** States of an input from the calibration forward, and what stands behind them. */
async function calibrationAnswer(checkpoint: Checkpoint, input: EncoderCase["input"]): Promise<Answer> {
  const linalg = await LinalgRuntime.create(), width = checkpoint.spec.hiddenSize;
  const pool = { threads: 1, concurrent: () => 1, run: (job: BlockJob) => runBlock(job, linalg) };
  const options = { checkpoint, pool: pool as unknown as LinalgPool, ...PLAIN };
  let residual: Residual;
  if ("ids" in input) {
    residual = embed(await readEmbedding(checkpoint), [Int32Array.from(input.ids)], shared);
  } else {
    const vectors = await Promise.all(
      IMAGE_VECTORS.filter((name) => checkpoint.has(name)).map(async (name) =>
        [name, (await checkpoint.read(name)).data] as const
      ),
    );
    const { rows, patches, added } = new ImageInput(checkpoint.spec, Object.fromEntries(vectors)).rowsOf(
      input,
    );
    const projection = toShared((await checkpoint.read("patch")).data);
    const job = {
      kind: "patches",
      patches: toShared(patches),
      projection,
      added: toShared(added),
      width,
    } as const;
    const states = await runPatches(job, linalg);
    if (checkpoint.spec.encoder!.embeddingNorm) await normaliseRows(states, checkpoint, "embeddingNorm");
    residual = { values: toShared(states), sequences: 1, length: rows };
  }
  for (let block = 0; block < checkpoint.spec.blocks; block++) {
    await runBlockOver(residual, await readBlock(checkpoint, block), { ...options, block });
  }
  await linalg.close();
  return (await denseAnswers(residual, checkpoint))[0];
}

/** What encoders are calibrated on here: images of every size and kind, the recorded token ids. */
async function encoderCalibration(dir: string, cases: readonly EncoderCase[]): Promise<string> {
  const ids = cases.flatMap(({ input }) => "ids" in input ? [[...input.ids], [...input.ids].reverse()] : []);
  if (ids.length === 0) return sharedFile("oracles/preprocess/").pathname;
  const text = join(dir, "ids.json");
  await Deno.writeTextFile(text, JSON.stringify(ids));
  return text;
}

for (const family of ENCODER_ORACLES) {
  oracleTest(
    `${family} is compressed, and served as the dense product of its S + L`,
    `oracles/${family}`,
    async () => {
      const folder = sharedFile(`oracles/${family}/`).pathname, dir = await Deno.makeTempDir();
      try {
        const cases = await encoderCases(family), checkpoint = await openCheckpoint(folder);
        for (const { name, input, output } of cases) {
          if ("ids" in input && input.types?.some((type) => type !== 0)) continue; // calibration has single texts
          const { pooled, logits } = await calibrationAnswer(checkpoint, input);
          const wanted = output.logits ?? output.image_embeds ?? output.pooler_output!;
          const answer = output.logits ? logits! : pooled;
          wanted.forEach((y, i) =>
            assert.ok(Math.abs(answer[i] - y) < ENCODER_TOLERANCE, `${name}: ${answer[i]}, ${y}`)
          );
        }
        checkpoint.close();

        const out = join(dir, "out"), text = await encoderCalibration(dir, cases);
        const recipe = {
          ...RECIPE,
          calibration: { text, sequences: 6, length: 16 },
        };
        const { header } = await compress({ source: folder, out, recipe, threads: 1 });
        assert.ok(header.layers.some(({ rate, rank }) => rate > 0.3 && rank > 0));
        assert.equal(header.perplexity, null);
        const artifact = await openArtifact(out), tensors = await loadTensors(artifact);
        for (const { name } of header.layers.slice(0, 7)) {
          await checkLayer(tensors, name, artifact.blockChunks);
        }

        const reference = await ReferenceModel.load(denseCheckpoint(artifact, tensors));
        const model = await openModel(out, { threads: 1, kvFormat: "f32" });
        assert.equal(model.encoder!.imageProcessor === null, family === "bert");
        assert.deepEqual(model.encoder!.labels?.length, cases[0].output.logits?.length);
        for (const { name, input } of cases) {
          if (
            "types" in input && input.types?.some((type) => type !== 0)
          ) continue;
          const exact = reference.hiddenStates("ids" in input ? input.ids : input).flatMap((row) => [...row]);
          const { states } = await model.encoder!.run(input);
          const off = Math.hypot(...exact.map((v, i) => v - states[i])) / Math.hypot(...exact);
          assert.ok(off < SERVED_BOUND, `${name}: off by ${off}`);
        }
        await model.engine.close();
      } finally {
        await Deno.remove(dir, { recursive: true });
      }
    },
  );
}
