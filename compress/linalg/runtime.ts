/**
 * The only file of compression that knows onnxruntime-node. Workers only: a run blocks the event loop of its thread.
 * Mostly one thread per runtime: parallelism comes from one worker per core (pool.ts).
 */
import type { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";
import { collectGarbage } from "../../engine/collect_garbage.ts";
import type { Matrix } from "./matrix.ts";
import { OnnxGraph } from "./onnx_graph.ts";

export interface Tensor {
  readonly data: Float32Array<ArrayBuffer>;
  readonly shape: readonly number[];
}

/** What a graph reads: codes of weights as well. */
export interface InputTensor {
  readonly data: Float32Array<ArrayBuffer> | Int8Array<ArrayBuffer>;
  readonly shape: readonly number[];
}

export interface Transposes {
  readonly transA?: boolean;
  readonly transB?: boolean;
}

/** What the algorithms ask for; tests may answer it with plain loops. */
export interface Linalg {
  /** A B, with either one transposed on the fly. */
  multiply(A: Matrix, B: Matrix, options?: Transposes): Promise<Matrix>;
}

/**
 * After large products of so many bytes there is a collection. V8 counts few objects and lets them lie: a layer of a 7B
 * model, which needs 14 matrices of 180 MB, took 25 to 37. It costs 11 ms, and that many bytes of products a second or
 * more. Small products stay below what V8 keeps anyway.
 */
const COLLECT_BYTES = 2 ** 29, LARGE_BYTES = 2 ** 24;

export class LinalgRuntime implements Linalg {
  #madeBytes = 0;
  readonly #sessions = new Map<string, Promise<InferenceSession>>();

  private constructor(
    readonly ort: typeof import("onnxruntime-node"),
    readonly threads: number,
    readonly profile: string | null,
  ) {}

  /** @param profile folder for what each session says of the time of its steps, once it is closed; null: nothing */
  static async create(threads = 1, profile: string | null = null): Promise<LinalgRuntime> {
    return new LinalgRuntime(await import("onnxruntime-node"), threads, profile);
  }

  async multiply(A: Matrix, B: Matrix, options: Transposes = {}): Promise<Matrix> {
    const m = options.transA ? A.cols : A.rows, n = options.transB ? B.rows : B.cols;
    this.#collectBefore(4 * m * n);
    const product = { rows: m, cols: n, data: new Float32Array(m * n) };
    await this.multiplyInto(product, A, B, options);
    return product;
  }

  /** The same into a matrix that is there. */
  async multiplyInto(
    product: Matrix,
    A: Matrix,
    B: Matrix,
    { transA = false, transB = false }: Transposes = {},
  ): Promise<void> {
    const [m, inner] = transA ? [A.cols, A.rows] : [A.rows, A.cols];
    const [k, n] = transB ? [B.cols, B.rows] : [B.rows, B.cols];
    if (k !== inner) throw new RangeError(`Cannot multiply [${m}, ${inner}] by [${k}, ${n}]`);
    if (product.rows !== m || product.cols !== n) throw new RangeError(`A product is [${m}, ${n}]`);
    if (m * n === 0) return;
    if (k === 0) return void product.data.fill(0);
    await this.run(
      `gemm ${transA} ${transB}`,
      () => gemmGraph(transA, transB),
      {
        a: { data: A.data, shape: [A.rows, A.cols] },
        b: { data: B.data, shape: [B.rows, B.cols] },
      },
      { y: { data: product.data, shape: [m, n] } },
    );
  }

  #collectBefore(bytes: number): void {
    if (bytes < LARGE_BYTES) return;
    this.#madeBytes += bytes;
    if (this.#madeBytes < COLLECT_BYTES) return;
    this.#madeBytes = bytes;
    collectGarbage();
  }

  /**
   * Runs the graph that `key` names (built at its first use) and fills `outputs` in place. Preallocated outputs
   * make a [2048, 576] x [576, 1536] product 20 % faster. Inputs must not be shared memory: ONNX Runtime refuses it.
   */
  async run(
    key: string,
    build: () => OnnxGraph,
    inputs: Readonly<Record<string, InputTensor>>,
    outputs: Readonly<Record<string, Tensor>>,
  ): Promise<void> {
    let session = this.#sessions.get(key);
    if (!session) {
      session = this.ort.InferenceSession.create(build().encode(), {
        intraOpNumThreads: this.threads,
        interOpNumThreads: 1,
        graphOptimizationLevel: "all",
        // Without the arena and the pattern cache freed activations go back to the system.
        enableCpuMemArena: false,
        enableMemPattern: false,
        // Threads that wait by spinning would take the core from the JavaScript between two products.
        extra: { session: { intra_op: { allow_spinning: "0" } } },
        ...this.profile === null ? {} : {
          enableProfiling: true,
          profileFilePrefix: `${this.profile}/${this.#sessions.size}`,
        },
      });
      this.#sessions.set(key, session);
    }
    await (await session).run(this.#tensors(inputs), this.#tensors(outputs));
  }

  #tensors(values: Readonly<Record<string, InputTensor>>): Record<string, OrtTensor> {
    const tensor = ({ data, shape }: InputTensor) =>
      data instanceof Int8Array
        ? new this.ort.Tensor("int8", data, shape)
        : new this.ort.Tensor("float32", data, shape);
    return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, tensor(value)]));
  }

  async close(): Promise<void> {
    for (const made of this.#sessions.values()) {
      const session = await made;
      if (this.profile !== null) session.endProfiling();
      await session.release();
    }
    this.#sessions.clear();
  }
}

function gemmGraph(transA: boolean, transB: boolean): OnnxGraph {
  const g = new OnnxGraph();
  const a = g.input("a", ["a0", "a1"]), b = g.input("b", ["b0", "b1"]);
  g.output("y", g.node("Gemm", [a, b], { transA: { int: +transA }, transB: { int: +transB } }));
  return g;
}
