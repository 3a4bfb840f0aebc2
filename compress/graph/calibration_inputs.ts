/**
 * What a graph is calibrated on, one set of inputs a run: images of a folder, windows of a text, rows of a safetensors file,
 * or (`self`) noise of the inputs' shapes.
 */
import { basename, extname, join } from "node:path";
import { OatmillError } from "../../errors.ts";
import { type GraphSource, positiveField } from "../../models/onnx/graph_source.ts";
import { type GraphInput, imageFeeds, tokenFeeds } from "../../models/onnx/graph_inputs.ts";
import type { GraphTensors } from "../../models/onnx/graph_tensor.ts";
import { ELEMENT } from "../../models/onnx/tensor_values.ts";
import { SafetensorsFile } from "../../models/formats/safetensors.ts";
import type { Recipe } from "../../models/recipe.ts";
import { loadTokenizer } from "../../models/tokenizer.ts";
import { parseProcessorConfig } from "../../vision/processor_config.ts";
import { readImage } from "../../vision/read_image.ts";
import { textSequences } from "../calibration.ts";
import { type Random, seededRandom, shuffled } from "../random.ts";

const PARAM = "calibration.text";
const IMAGE = /\.(jpe?g|png|webp)$/i;
/** What free dimensions of noise become: the batch, and others (lengths). */
const NOISE_BATCH = 4, NOISE_LENGTH = 16;
/** Rows of a safetensors file that go through the graph at once. */
const BATCH = 16;
/** Of all inputs together, which stand in memory at once: 1 GiB of floats. */
const MAX_VALUES = 2 ** 28;
/** Encoders of text were trained on no longer ones. */
const MOST_TOKENS = 512;

type Wanted = Recipe["calibration"];

const refused = (text: string, why: string) =>
  new OatmillError("invalid_recipe", `Cannot calibrate on "${text}": ${why}`, PARAM);

/**
 * @returns at most `wanted.sequences` sets of inputs, at least one
 * @throws {OatmillError} invalid_recipe: what the graph does not read, or cannot be read; what reading images throws
 */
export async function calibrationInputs(source: GraphSource, wanted: Wanted): Promise<GraphTensors[]> {
  const { text } = wanted, { reads } = source;
  const feeds = text === "self"
    ? noise(source, wanted)
    : extname(text) === ".safetensors"
    ? await rows(source, wanted)
    : reads === "images"
    ? await images(source, wanted)
    : reads === "text"
    ? await texts(source, wanted)
    : null;
  if (feeds && feeds.length > 0) return feeds;
  throw refused(
    text,
    "the graph reads tensors of its own, put them into a .safetensors file by the names of its inputs",
  );
}

async function images({ inputs, imageProcessor }: GraphSource, wanted: Wanted): Promise<GraphTensors[]> {
  const { text, sequences, seed } = wanted;
  if (!imageProcessor) {
    throw refused(text, "preprocessor_config.json, which says how images become pixels, must lie beside it");
  }
  const config = parseProcessorConfig(imageProcessor);
  const files = shuffled(await imageFiles(text), seededRandom(seed)).slice(0, sequences);
  if (files.length === 0) throw refused(text, "it must be a folder with .jpg, .png or .webp files");
  const feeds: GraphTensors[] = [];
  for (const file of files) {
    const pixels = await readImage(await Deno.readFile(file), config, basename(file));
    checkValues(text, pixels.data.length, files.length);
    feeds.push(imageFeeds(inputs, pixels));
  }
  return feeds;
}

/** @param values of one set of inputs; images mostly have one size */
function checkValues(text: string, values: number, sets: number): void {
  const most = Math.floor(MAX_VALUES / values);
  if (sets <= most) return;
  throw refused(
    text,
    `${sets} inputs of ${values} values are more than stand in memory at once; ask for ${most} sequences or fewer`,
  );
}

/** All of a folder and the folders in it, in the order of their names; links are not followed. */
async function imageFiles(folder: string): Promise<string[]> {
  const entries = await Array.fromAsync(Deno.readDir(folder)).catch(() => {
    throw refused(folder, "it must be a folder with images");
  });
  const found = await Promise.all(
    entries.sort((a, b) => a.name < b.name ? -1 : 1).map(({ name, isDirectory, isFile }) => {
      const path = join(folder, name);
      return isDirectory ? imageFiles(path) : isFile && IMAGE.test(name) ? [path] : [];
    }),
  );
  return found.flat();
}

async function texts(source: GraphSource, wanted: Wanted): Promise<GraphTensors[]> {
  const { inputs, tokenizerFiles, config } = source, { text, sequences, seed } = wanted;
  const fixed = inputs.map(({ dims }) => dims[1]).find((n) => n !== null);
  const length = fixed ?? Math.min(wanted.length, mostTokens(config));
  const reader = {
    vocabSize: positiveField(config, "vocab_size") ?? Infinity,
    tokenizer: () => {
      if (tokenizerFiles) return loadTokenizer(tokenizerFiles);
      throw refused(text, "tokenizer.json must lie beside the graph");
    },
  };
  const found = await textSequences(text, reader, { sequences, length, seed });
  return found.map((ids) => tokenFeeds(inputs, { ids: [...ids] }));
}

const mostTokens = (config: GraphSource["config"]): number =>
  Math.min(MOST_TOKENS, positiveField(config, "max_position_embeddings") ?? MOST_TOKENS);

/** Tensors named as the inputs, their first dimension the batch. */
async function rows({ inputs }: GraphSource, { text, sequences }: Wanted): Promise<GraphTensors[]> {
  using file = await SafetensorsFile.open(text);
  const values = await Promise.all(inputs.map(async ({ name, elemType, dims }) => {
    if (elemType !== ELEMENT.float) throw refused(text, `input "${name}" of the graph is no float32`);
    const shape = file.entries.get(name)?.shape;
    const fits = shape?.length === dims.length &&
      dims.every((n, i) => i === 0 || n === null || n === shape[i]);
    if (!shape || !fits) {
      const wanted = dims.map((n) => n ?? "any").join(", ");
      throw refused(text, `tensor "${name}" is ${shape ? `[${shape}]` : "missing"}, must be [${wanted}]`);
    }
    const length = shape.reduce((a, b) => a * b, 1);
    return {
      name,
      shape,
      batch: dims[0] ?? Math.min(BATCH, shape[0]),
      data: await file.readFloat32(name, 0, length),
    };
  }));
  const runs = Math.min(sequences, ...values.map(({ shape, batch }) => Math.floor(shape[0] / batch)));
  if (runs < 1) throw refused(text, "its tensors have fewer rows than the graph reads at once");
  return Array.from(
    { length: runs },
    (_, run) =>
      Object.fromEntries(values.map(({ name, shape, batch, data }) => {
        const size = batch * shape.slice(1).reduce((a, b) => a * b, 1);
        const part = new Float32Array(data.subarray(run * size, (run + 1) * size));
        return [name, { type: "float32", dims: [batch, ...shape.slice(1)], data: part }];
      })),
  );
}

/** Normal values, or token ids at random: enough to try a graph out, not to trust what comes of it. */
function noise({ inputs, reads, config, imageProcessor }: GraphSource, wanted: Wanted): GraphTensors[] {
  const random = seededRandom(wanted.seed), vocab = positiveField(config, "vocab_size");
  const processor = reads === "images" && imageProcessor ? parseProcessorConfig(imageProcessor) : null;
  const size = processor?.crop ?? processor?.resize?.to;
  const edges = size && "width" in size ? [size.height, size.width] : [null, null];
  const shapes = reads === "text" ? inputs.map(({ dims }) => dims) : inputs.map((i) => noiseShape(i, edges));
  const sizes = shapes.map((shape) => shape.reduce<number>((product, n) => product * (n ?? 1), 1));
  checkValues("self", sizes.reduce((a, b) => a + b, 0), wanted.sequences);
  return Array.from({ length: wanted.sequences }, () => {
    if (reads === "text") {
      if (!vocab) {
        throw refused(
          "self",
          "config.json, which says the vocabulary, must lie beside the graph; or give a text",
        );
      }
      const length = inputs[0].dims[1] ?? Math.min(wanted.length, mostTokens(config));
      return tokenFeeds(inputs, { ids: Array.from({ length }, () => random.below(vocab)) });
    }
    return Object.fromEntries(inputs.map((input) => [input.name, noiseOf(input, edges, random)]));
  });
}

function noiseOf({ name, elemType, dims }: GraphInput, edges: readonly (number | null)[], random: Random) {
  if (elemType !== ELEMENT.float) {
    throw refused(
      "self",
      `input "${name}" of the graph is no float32: nobody knows which values it may have`,
    );
  }
  const shape = noiseShape({ dims }, edges), length = shape.reduce((a, b) => a * b, 1);
  return { type: "float32", dims: shape, data: Float32Array.from({ length }, () => random.normal()) };
}

function noiseShape({ dims }: Pick<GraphInput, "dims">, edges: readonly (number | null)[]): number[] {
  const isImage = dims.length === 4;
  return dims.map((n, i) =>
    n ?? (i === 0 ? (isImage ? 1 : NOISE_BATCH) : isImage ? imageDim(i, edges) : NOISE_LENGTH)
  );
}

/** Channels, height and width of an image whose graph leaves them open. */
const imageDim = (i: number, edges: readonly (number | null)[]): number =>
  i === 1 ? 3 : edges[i - 2] ?? DEFAULT_EDGE;
/** What most vision models were trained on. */
const DEFAULT_EDGE = 224;
