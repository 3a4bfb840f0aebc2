/** The values of an ONNX graph in a file beside it: named while the graph is made, written afterwards, one at a time. */
import type { OnnxGraph } from "../compress/linalg/onnx_graph.ts";
import type { Checkpoint, WeightRole } from "../models/checkpoint.ts";

/** What graph builders ask for; both return the value's name. */
export interface DataFile {
  /** A weight, under the name of its role. */
  weight(g: OnnxGraph, role: WeightRole, shape: readonly number[]): string;
  /** Values known now; the same ones are stored once. */
  vector(g: OnnxGraph, values: readonly number[]): string;
}

/** Files are mapped into memory by whole pages; ONNX asks for offsets of them. */
const ALIGN = 4096;

interface Stored {
  readonly offset: number;
  readonly bytes: number;
  readonly read: (weights: Checkpoint) => Promise<Float32Array<ArrayBuffer>>;
}

export class OnnxData implements DataFile {
  readonly #stored: Stored[] = [];
  readonly #vectors = new Map<string, string>();
  #end = 0;

  constructor(readonly file: string) {}

  weight(g: OnnxGraph, role: WeightRole, shape: readonly number[]): string {
    return this.#add(g, shape, async (weights) => (await weights.read(role)).data, role);
  }

  vector(g: OnnxGraph, values: readonly number[]): string {
    const key = values.join();
    let name = this.#vectors.get(key);
    if (!name) {
      name = this.#add(g, [values.length], () => Promise.resolve(Float32Array.from(values)));
      this.#vectors.set(key, name);
    }
    return name;
  }

  /** @returns bytes of all values */
  async write(
    path: string,
    weights: Checkpoint,
    onTensor?: (done: number, total: number) => void,
  ): Promise<number> {
    using file = await Deno.open(path, { write: true, createNew: true });
    const writer = file.writable.getWriter();
    let at = 0;
    for (const [i, { offset, bytes, read }] of this.#stored.entries()) {
      if (offset > at) await writer.write(new Uint8Array(offset - at));
      await writer.write(new Uint8Array((await read(weights)).buffer));
      at = offset + bytes;
      onTensor?.(i + 1, this.#stored.length);
    }
    await writer.close();
    return this.#stored.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  #add(g: OnnxGraph, shape: readonly number[], read: Stored["read"], name?: string): string {
    const offset = this.#end, bytes = 4 * shape.reduce((a, b) => a * b, 1);
    this.#stored.push({ offset, bytes, read });
    this.#end = Math.ceil((offset + bytes) / ALIGN) * ALIGN;
    return g.external({ name, type: "f32", shape, file: this.file, offset, bytes });
  }
}
