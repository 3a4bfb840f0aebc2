/**
 * Every linear layer of a model as one ONNX graph of ONNX Runtime's MatMulNBits: no attention, no norms, no KV cache. What
 * ONNX Runtime takes for it bounds the tokens per second of a whole decoder from above.
 *
 * Layers read their inputs by width, `x576 [rows, 576]`, and all outputs of one width are added into `y576`, so that none
 * is left out of the run: about what the residual stream costs. The head reads rows of its own, `head [headRows, hidden]`,
 * because a prompt needs logits after its last token only.
 */
import { join } from "node:path";
import { OnnxGraph } from "../compress/linalg/onnx_graph.ts";
import type { Checkpoint, WeightRole } from "../models/checkpoint.ts";
import { type LinearKind, linearShapes } from "../models/spec.ts";

export type OrtBits = 4 | 8;

/** Weights with one scale: as many as in llama.cpp's types. */
const BLOCK = 32;
/** Activations are rounded to int8 for the product: the fastest of MatMulNBits's levels. */
const INT8_ACTIVATIONS = 4;
const WEIGHTS_FILE = "weights.bin";

export interface OrtLayers {
  readonly model: string;
  /** Columns of the inputs `x<width>`. */
  readonly inputs: readonly number[];
  /** Columns of the outputs `y<width>`. */
  readonly outputs: readonly number[];
  readonly hiddenSize: number;
  readonly vocabSize: number;
}

/**
 * Blocks of {@linkcode BLOCK} along each row: unsigned codes around the middle, low nibble first; f32 scales, absmax / most code.
 * @param weight `[dOut, dIn]`, whose rows are padded with zeros to whole blocks
 */
export function quantizeNBits(weight: Float32Array, [dOut, dIn]: readonly [number, number], bits: OrtBits) {
  const blocks = Math.ceil(dIn / BLOCK), zero = 2 ** (bits - 1), blockBytes = BLOCK * bits / 8;
  const codes = new Uint8Array(dOut * blocks * blockBytes);
  const scales = new Float32Array(dOut * blocks);
  for (let row = 0, block = 0; row < dOut; row++) {
    for (let from = 0; from < dIn; from += BLOCK, block++) {
      const first = row * dIn + from, end = row * dIn + Math.min(dIn, from + BLOCK);
      let peak = 0;
      for (let at = first; at < end; at++) peak = Math.max(peak, Math.abs(weight[at]));
      scales[block] = peak / (zero - 1);
      for (let i = 0, at = first; i < BLOCK; i++, at++) {
        const code = zero + (peak === 0 || at >= end ? 0 : Math.round(weight[at] / peak * (zero - 1)));
        if (bits === 8) codes[block * blockBytes + i] = code;
        else codes[block * blockBytes + (i >> 1)] |= code << (i & 1) * 4;
      }
    }
  }
  return { codes, scales, blocks, blockBytes };
}

/** Constants in a file beside the model. */
class WeightsFile {
  #offset = 0;
  constructor(readonly graph: OnnxGraph, readonly file: Deno.FsFile) {}

  async add(values: Uint8Array | Float32Array, shape: readonly number[]): Promise<string> {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    for (let done = 0; done < bytes.length;) done += await this.file.write(bytes.subarray(done));
    const offset = this.#offset;
    this.#offset += bytes.length;
    const type = values instanceof Float32Array ? "f32" : "u8";
    return this.graph.external({ type, shape, file: WEIGHTS_FILE, offset, bytes: bytes.length });
  }
}

/** Writes the model into `folder`, layer by layer. */
export async function writeOrtLayers(
  checkpoint: Checkpoint,
  folder: string,
  bits: OrtBits,
): Promise<OrtLayers> {
  const { spec } = checkpoint;
  const graph = new OnnxGraph();
  using file = await Deno.open(join(folder, WEIGHTS_FILE), { write: true, create: true, truncate: true });
  const weights = new WeightsFile(graph, file);
  const layer = async (
    input: string,
    role: WeightRole,
    shape: readonly [number, number],
  ): Promise<string> => {
    const [dOut, dIn] = shape;
    const { codes, scales, blocks, blockBytes } = quantizeNBits(
      (await checkpoint.read(role)).data,
      shape,
      bits,
    );
    const b = await weights.add(codes, [dOut, blocks, blockBytes]);
    const s = await weights.add(scales, [dOut * blocks]);
    const attributes = {
      K: { int: dIn },
      N: { int: dOut },
      bits: { int: bits },
      block_size: { int: BLOCK },
      accuracy_level: { int: INT8_ACTIVATIONS },
    };
    return graph.node("MatMulNBits", [input, b, s], attributes, undefined, "com.microsoft");
  };

  const sums = new Map<number, string>(), inputs = new Set<number>();
  for (let block = 0; block < spec.blocks; block++) {
    for (const [name, shape] of Object.entries(linearShapes(spec))) {
      const [dOut, dIn] = shape;
      const x = graph.has(`x${dIn}`) ? `x${dIn}` : graph.input(`x${dIn}`, ["rows", dIn]);
      inputs.add(dIn);
      const y = await layer(x, `block.${block}.${name as LinearKind}`, shape);
      const sum = sums.get(dOut);
      sums.set(dOut, sum === undefined ? y : graph.node("Add", [sum, y]));
    }
  }
  for (const [width, sum] of sums) graph.output(`y${width}`, sum);
  const head = graph.input("head", ["headRows", spec.hiddenSize]);
  graph.output("logits", await layer(head, "head", [spec.vocabSize, spec.hiddenSize]));

  const model = join(folder, "layers.onnx");
  await Deno.writeFile(model, graph.encode());
  const { hiddenSize, vocabSize } = spec;
  return { model, inputs: [...inputs], outputs: [...sums.keys()], hiddenSize, vocabSize };
}
