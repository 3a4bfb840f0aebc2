/** ../shared/oracles/onnx: graphs, inputs by formula, what ONNX Runtime made of them. */
import { shared } from "../../../models/testing/shared.ts";
import type { GraphTensors } from "../../../models/onnx/graph_tensor.ts";

export interface GraphInput {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array<ArrayBuffer>;
}

export interface GraphOracle {
  readonly file: string;
  /** Shapes `[dOut, dIn]` of the weights that can be compressed, each once. */
  readonly layers: readonly (readonly number[])[];
  readonly cases: readonly {
    readonly input: GraphInput;
    readonly outputs: Readonly<Record<string, { readonly shape: number[]; readonly values: number[] }>>;
  }[];
}

interface Recorded {
  readonly compressible_weights: readonly { weight: string; dims: number[]; stored_out_in: boolean }[];
  readonly cases: readonly {
    readonly input?: string;
    readonly input_name?: string;
    readonly shape?: number[];
    readonly image?: string | string[];
    readonly outputs: GraphOracle["cases"][number]["outputs"];
  }[];
}

/** "x flat[i] = ((k i² + 11 i + 5) mod 251) / 125 - 1", k by the input's name. */
function flatInput(name: string, shape: readonly number[]): Float32Array<ArrayBuffer> {
  const k = name === "a" ? 37 : 53, length = shape.reduce((a, b) => a * b, 1);
  return Float32Array.from({ length }, (_, i) => ((k * i * i + 11 * i + 5) % 251) / 125 - 1);
}

const IMAGES: Readonly<Record<string, (c: number, y: number, x: number) => number>> = {
  ramp: (c, y, x) => (7 * c + 13 * y + 29 * x) % 256,
  quad: (c, y, x) => ((c + 1) * (3 * y * y + 5 * x * y + 11 * x + 17)) % 256,
  black: () => 0,
};
const SIDE = 32;

/** `[3, 32, 32]`, mean and std 0.5. */
export function imagePixels(name: string): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: 3 * SIDE * SIDE }, (_, i) => {
    const c = Math.floor(i / SIDE / SIDE), y = Math.floor(i / SIDE) % SIDE;
    return (IMAGES[name](c, y, i % SIDE) / 255 - 0.5) / 0.5;
  });
}

function inputOf({ input, input_name, shape, image }: Recorded["cases"][number]): GraphInput {
  if (input && input_name && shape) return { name: input_name, shape, data: flatInput(input, shape) };
  const images = [image ?? []].flat(), each = images.map(imagePixels);
  return {
    name: "pixel_values",
    shape: [images.length, 3, SIDE, SIDE],
    data: Float32Array.from(each.flatMap((pixels) => [...pixels])),
  };
}

export async function readGraphOracles(): Promise<GraphOracle[]> {
  const { models } = JSON.parse(await Deno.readTextFile(shared("oracles/onnx/expected.json")));
  return Object.entries(models as Record<string, Recorded>).map(([file, { compressible_weights, cases }]) => {
    const once = new Map(compressible_weights.map((w) => [w.weight, w]));
    const layers = [...once.values()].map(({ dims, stored_out_in }) =>
      stored_out_in ? dims : dims.toReversed()
    );
    return { file, layers, cases: cases.map((c) => ({ input: inputOf(c), outputs: c.outputs })) };
  });
}

/** A copy: a graph takes its feeds over. */
export const feedsOf = ({ name, shape, data }: GraphInput): GraphTensors => ({
  [name]: { type: "float32", dims: shape, data: data.slice() },
});
