/**
 * What the layers of a graph become: for each step (layers that read one value) the operations of models/plan.ts that
 * prepare the value once and multiply it by S and V, and then by U.
 */
import { OatmillError } from "../../errors.ts";
import { formatName, type Shape2 } from "../../kernels/layout.ts";
import type { TensorEntry } from "../../models/formats/artifact_header.ts";
import type { LinearStep } from "../../models/onnx/segments.ts";
import { kindsOf, wholeGroups } from "../../models/build_plan.ts";
import type { Plan, PlanOp } from "../../models/plan.ts";

export type LayerOp = PlanOp & { readonly op: "prepare" | "linear" | "sync" };

/** Reads rows of buffer `x`, writes rows of buffer `y`. */
export interface StepPlan {
  readonly ops: readonly LayerOp[];
  readonly cols: number;
  /** Of each layer: its first column in `y`, and how many it has. */
  readonly outputs: readonly { readonly column: number; readonly cols: number }[];
}

export interface GraphPlan extends Pick<Plan, "buffers" | "tiles" | "modules"> {
  readonly steps: readonly StepPlan[];
}

/** A graph's layers as they are stored: tensors `layer.I.w`, or `.s` (and `.v`, `.u`), and `group.G.scale`. */
export interface PackedLayers {
  readonly tensors: readonly TensorEntry[];
  readonly blockChunks: number;
}

const broken = (why: string) =>
  new OatmillError("invalid_artifact", `Cannot plan the graph's layers: ${why}`);
const ref = (buffer: string, column = 0) => ({ buffer, column });

/** One layer's parts; kernels trust the addresses that follow from their shapes. */
interface Parts {
  readonly main: TensorEntry;
  readonly v: TensorEntry | null;
  readonly u: TensorEntry | null;
}

class Planner {
  readonly #tensors: ReadonlyMap<string, TensorEntry>;
  readonly buffers: Record<string, number> = {};
  readonly tiles: Record<string, { cols: number; kinds: Plan["tiles"][string]["kinds"] }> = {};

  constructor(readonly model: PackedLayers) {
    this.#tensors = new Map(model.tensors.map((t) => [t.name, t]));
  }

  step({ group, layers }: LinearStep): StepPlan {
    const parts = layers.map(({ layer }) => this.#parts(`layer.${layer}`));
    const [{ main: { shape: [, cols] } }] = parts;
    if (parts.some(({ main }) => main.shape[1] !== cols)) {
      throw broken(`layers of group ${group} differ in columns`);
    }
    const ranked = parts.flatMap(({ main, v, u }) => v && u ? [{ main, v, u }] : []);
    const kinds = kindsOf(parts.flatMap(({ main, v }) => v ? [main, v] : [main]));
    const columns = this.#columns("y", parts.map(({ main }) => main));
    const lows = this.#columns("low", ranked.map(({ v }) => v));
    this.#room("x", cols);
    this.#tile("x", cols, kinds);
    const ops: LayerOp[] = [
      { op: "prepare", input: ref("x"), ...PLAIN, scale: this.#scale(group, cols), cols, tile: "x", kinds },
      { op: "sync" },
      ...linears(parts.map(({ main }) => main), columns, "y"),
      ...linears(ranked.map(({ v }) => v), lows, "low"),
      { op: "sync" },
    ];
    ranked.forEach(({ u }, i) => {
      const tile = `low.${i}`, kinds = kindsOf([u]), cols = u.shape[1];
      this.#tile(tile, cols, kinds);
      ops.push({ op: "prepare", input: ref("low", lows[i]), ...PLAIN, scale: null, cols, tile, kinds });
    });
    if (ranked.length > 0) ops.push({ op: "sync" });
    ranked.forEach(({ main, u }, i) => {
      const out = ref("y", columns[parts.findIndex((part) => part.main === main)]);
      ops.push({ op: "linear", weights: [u.name], biases: [], tile: `low.${i}`, out, accumulate: true });
    });
    if (ranked.length > 0) ops.push({ op: "sync" });
    return { ops, cols, outputs: parts.map(({ main }, i) => ({ column: columns[i], cols: main.shape[0] })) };
  }

  #room(buffer: string, cols: number): void {
    this.buffers[buffer] = Math.max(this.buffers[buffer] ?? 0, cols);
  }

  #tile(name: string, cols: number, kinds: Plan["tiles"][string]["kinds"]): void {
    const known = this.tiles[name];
    this.tiles[name] = {
      cols: Math.max(known?.cols ?? 0, cols),
      kinds: [...new Set([...known?.kinds ?? [], ...kinds])],
    };
  }

  /** First columns of outputs that lie side by side, each whole groups of rows. */
  #columns(buffer: string, weights: readonly TensorEntry[]): number[] {
    let column = 0;
    const columns = weights.map(({ shape }) => {
      const begin = column;
      column += wholeGroups(shape[0]);
      return begin;
    });
    this.#room(buffer, column);
    return columns;
  }

  #packed(name: string, shape?: Shape2): TensorEntry {
    const t = this.#tensors.get(name);
    if (!t) throw broken(`tensor "${name}" is missing`);
    const { format } = t;
    if (
      format.kind === "vector" || t.shape.length !== 2 || (shape && shape.some((n, i) => n !== t.shape[i]))
    ) {
      throw broken(
        `tensor "${name}" is ${format.kind} [${t.shape}], must be a packed layer [${shape ?? "dOut,dIn"}]`,
      );
    }
    if (format.kind === "windows" && format.blockChunks !== this.model.blockChunks) {
      throw broken(
        `tensor "${name}" has blocks of ${format.blockChunks} chunks, the model ${this.model.blockChunks}`,
      );
    }
    return t;
  }

  #parts(layer: string): Parts {
    const main = this.#packed(`${layer}.${this.#tensors.has(`${layer}.w`) ? "w" : "s"}`);
    const [dOut, dIn] = main.shape, rank = this.#tensors.get(`${layer}.v`)?.shape[0];
    if (rank === undefined) return { main, v: null, u: null };
    return { main, v: this.#packed(`${layer}.v`, [rank, dIn]), u: this.#packed(`${layer}.u`, [dOut, rank]) };
  }

  #scale(group: number, cols: number): string | null {
    const name = `group.${group}.scale`, t = this.#tensors.get(name);
    if (!t) return null;
    if (t.format.kind === "vector" && t.shape.length === 1 && t.shape[0] === cols) return name;
    throw broken(`tensor "${name}" is ${t.format.kind} [${t.shape}], must be a vector of ${cols}`);
  }
}

const PLAIN = { activation: null, norm: null } as const;

/** Neighbours of one format are one call: their weights are one long stream. */
function linears(weights: readonly TensorEntry[], columns: readonly number[], buffer: string): LayerOp[] {
  const runs: { key: string; names: string[]; column: number }[] = [];
  weights.forEach(({ name, format }, i) => {
    const key = JSON.stringify(format);
    if (runs.at(-1)?.key === key) runs.at(-1)!.names.push(name);
    else runs.push({ key, names: [name], column: columns[i] });
  });
  const tile = "x";
  return runs.map(({ names, column }) => ({
    op: "linear",
    weights: names,
    biases: [],
    tile,
    out: ref(buffer, column),
    accumulate: false,
  }));
}

/** @throws {OatmillError} invalid_artifact when tensors are missing or do not fit together */
export function planGraph(steps: readonly LinearStep[], model: PackedLayers): GraphPlan {
  const planner = new Planner(model);
  const plans = steps.map((step) => planner.step(step));
  const formats = model.tensors.flatMap(({ format }) => format.kind === "vector" ? [] : [formatName(format)]);
  return { steps: plans, buffers: planner.buffers, tiles: planner.tiles, modules: [...new Set(formats)] };
}
