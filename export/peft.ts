/**
 * What was done to a model's linear layers as a PEFT folder: the change of L from a base model to this one, or the best of a
 * given rank for the whole change, S with it. PEFT adds it to the base, exported as safetensors.
 */
import { basename, join, resolve } from "node:path";
import { OatmillError } from "../errors.ts";
import { energy, type Matrix, matrix, place, subtract, transpose } from "../compress/linalg/matrix.ts";
import { type Factors, truncatedSvd } from "../compress/linalg/low_rank.ts";
import { LinalgRuntime } from "../compress/linalg/runtime.ts";
import { balanceFactors } from "../compress/quantize.ts";
import type { WeightRole } from "../models/checkpoint.ts";
import { ADAPTER_CONFIG } from "../models/peft/adapter_config.ts";
import { type ModulePart, type PeftModule, peftModules, rowsOf } from "../models/peft/modules.ts";
import { ADAPTER_WEIGHTS } from "../models/peft/read_adapter.ts";
import type { DenseModel } from "./dense_model.ts";
import type { DenseWeights, LayerParts } from "./dense_weights.ts";
import type { FloatType } from "./float_types.ts";
import { writeTensors } from "./safetensors.ts";
import { differentField } from "./same_spec.ts";
import { writeJson } from "./write_configs.ts";
import { writeFolder } from "./write_folder.ts";

export interface PeftOptions {
  readonly type: FloatType;
  /** What the adapter will be added to. */
  readonly base: DenseModel;
  /** Most rank of a layer: the whole change is then approximated. Absent: the change of L, exactly. */
  readonly rank?: number;
  readonly onTensor?: (done: number, total: number) => void;
}

export interface ExportedPeft {
  readonly files: readonly string[];
  readonly bytes: number;
  /** Of its modules, the largest. */
  readonly rank: number;
  readonly modules: number;
  /** |W' - W - B A| / |W' - W| over all linear layers: what the adapter does not hold. */
  readonly rest: number;
}

/** B `[dOut, r]` and A `[r, dIn]` of a module. */
interface Pair {
  readonly module: PeftModule;
  readonly A: Matrix;
  readonly B: Matrix;
}

/**
 * @param out the folder to make
 * @throws {OatmillError} conflict (`out` exists), storage_failed; invalid_request when the two models differ in shape or not
 *   at all, or have no parts and there is no rank; unsupported_format (values beyond the type)
 */
export async function exportPeft(
  model: DenseModel,
  out: string,
  options: PeftOptions,
): Promise<ExportedPeft> {
  const { base, type } = options;
  requireSameShape(model, base);
  const { pairs, rest } = await findPairs(model, options);
  if (pairs.length === 0) {
    throw new OatmillError(
      "invalid_request",
      `Cannot export the change from "${base.name}" to "${model.name}": ` +
        (rest > 0
          ? "L did not change; --rank N approximates the change of S"
          : "their linear layers are the same"),
    );
  }
  const tensors = pairs.flatMap(({ module: { path }, A, B }) =>
    ([["A", A], ["B", B]] as const).map(([factor, M]) => ({
      name: `base_model.model.${path}.lora_${factor}.weight`,
      shape: [M.rows, M.cols],
      read: () => Promise.resolve(M.data),
    }))
  );
  const bytes = await writeFolder(out, async (folder) => {
    await writeJson(join(folder, ADAPTER_CONFIG), configOf(pairs, base));
    return await writeTensors(join(folder, ADAPTER_WEIGHTS), tensors, type);
  });
  const rank = Math.max(...pairs.map(({ A }) => A.rows));
  return { files: [ADAPTER_WEIGHTS], bytes, rank, modules: pairs.length, rest };
}

function requireSameShape({ name, weights: { spec } }: DenseModel, base: DenseModel): void {
  const field = differentField(spec, base.weights.spec);
  if (field === null) return;
  throw new OatmillError(
    "invalid_request",
    `Cannot export the change from "${base.name}" to "${name}": they are models of different shape (${field})`,
    "base",
  );
}

async function findPairs(model: DenseModel, options: PeftOptions) {
  const modules = peftModules(model.weights.spec), pairs: Pair[] = [];
  const linalg = await LinalgRuntime.create(navigator.hardwareConcurrency);
  let left = 0, all = 0;
  try {
    for (const [done, module] of modules.entries()) {
      const parts: { part: ModulePart; factors: Factors }[] = [];
      for (const part of module.parts) {
        const { factors, changed, missed } = await changeOf(part, model, { ...options, linalg });
        all += changed;
        left += missed;
        if (factors.U.cols > 0) parts.push({ part, factors: balanceFactors(factors.U, factors.V) });
      }
      if (parts.length > 0) pairs.push(joined(module, parts));
      options.onTensor?.(done + 1, modules.length);
    }
  } finally {
    await linalg.close();
  }
  return { pairs, rest: all === 0 ? 0 : Math.sqrt(left / all) };
}

interface Change {
  readonly factors: Factors;
  /** |W' - W|² */
  readonly changed: number;
  /** |W' - W - U V|² */
  readonly missed: number;
}

async function changeOf(
  { layer, shape: [rows, cols] }: ModulePart,
  { weights, parts, name }: DenseModel,
  { base, rank, linalg }: PeftOptions & { readonly linalg: LinalgRuntime },
): Promise<Change> {
  const role = layer as WeightRole; // of a linear layer
  const read = async (from: DenseModel["weights"]) => matrix(rows, cols, (await from.read(role)).data);
  const change = subtract(await read(weights), await read(base.weights)), changed = energy(change);
  if (rank !== undefined) {
    if (changed === 0) return { factors: nothing(rows, cols), changed, missed: 0 };
    const { U, V } = await truncatedSvd(change, Math.min(rank, rows, cols), linalg);
    const missed = energy(subtract(change, await linalg.multiply(U, V)));
    return { factors: { U, V }, changed, missed };
  }
  const [after, before] = [partsOf(parts, layer, name), partsOf(base.parts, layer, base.name)];
  const missed = energy(subtract(matrix(rows, cols, after.sparse), matrix(rows, cols, before.sparse)));
  return { factors: differenceOf(after.lowRank, before.lowRank, [rows, cols]), changed, missed };
}

function partsOf(parts: DenseWeights | null, layer: string, model: string): LayerParts {
  if (parts) return parts.readParts(layer);
  throw new OatmillError(
    "invalid_request",
    `Cannot export the change of L: "${model}" is no artifact, its layers have no L; --rank N approximates all that changed`,
    "rank",
  );
}

const nothing = (rows: number, cols: number): Factors => ({ U: matrix(rows, 0), V: matrix(0, cols) });

/**
 * U' V' - U V as one product: a rank whose row of V stayed takes the difference of its columns of U, others both.
 * @param shape `[dOut, dIn]`
 */
export function differenceOf(
  after: LayerParts["lowRank"],
  before: LayerParts["lowRank"],
  [rows, cols]: readonly [number, number],
): Factors {
  const column = ({ u, rank }: NonNullable<LayerParts["lowRank"]>, i: number) =>
    Float32Array.from({ length: rows }, (_, row) => u[row * rank + i]);
  const row = ({ v }: NonNullable<LayerParts["lowRank"]>, i: number) => v.subarray(i * cols, (i + 1) * cols);
  const pairs: { u: Float32Array; v: Float32Array }[] = [];
  for (let i = 0; i < Math.max(after?.rank ?? 0, before?.rank ?? 0); i++) {
    const a = after && i < after.rank ? { u: column(after, i), v: row(after, i) } : null;
    const b = before && i < before.rank ? { u: column(before, i), v: row(before, i) } : null;
    if (a && b && a.v.every((x, j) => x === b.v[j])) pairs.push({ u: a.u.map((x, j) => x - b.u[j]), v: a.v });
    else pairs.push(...a ? [a] : [], ...b ? [{ u: b.u.map((x) => -x), v: b.v }] : []);
  }
  const kept = pairs.filter(({ u, v }) => u.some((x) => x !== 0) && v.some((x) => x !== 0));
  const Ut = matrix(kept.length, rows), V = matrix(kept.length, cols);
  kept.forEach(({ u, v }, i) => {
    Ut.data.set(u, i * rows);
    V.data.set(v, i * cols);
  });
  return { U: transpose(Ut), V };
}

/** Layers that a module holds together have one A: each has its own ranks of it, and zeros in B for the others'. */
function joined(module: PeftModule, parts: readonly { part: ModulePart; factors: Factors }[]): Pair {
  const [dOut, dIn] = module.shape, rank = parts.reduce((sum, { factors }) => sum + factors.V.rows, 0);
  const A = matrix(rank, dIn), B = matrix(dOut, rank);
  let from = 0;
  for (const { part, factors: { U, V } } of parts) {
    place(A, V, from, 0);
    let i = 0;
    for (const row of rowsOf(part)) {
      B.data.set(U.data.subarray(i * U.cols, (i + 1) * U.cols), row * rank + from);
      i++;
    }
    from += V.rows;
  }
  return { module, A, B };
}

/** Alpha is the rank everywhere: the scale is in B. */
function configOf(pairs: readonly Pair[], base: DenseModel): Record<string, unknown> {
  const ranks = pairs.map(({ A }) => A.rows), count = Map.groupBy(ranks, (rank) => rank);
  const [r] = [...count].reduce((a, b) => b[1].length > a[1].length ? b : a);
  const others = Object.fromEntries(
    pairs.filter(({ A }) => A.rows !== r).map(({ module, A }) => [module.path, A.rows]),
  );
  return {
    peft_type: "LORA",
    task_type: "CAUSAL_LM",
    base_model_name_or_path: basename(resolve(base.name)),
    r,
    lora_alpha: r,
    rank_pattern: others,
    alpha_pattern: others,
    target_modules: pairs.map(({ module: { path } }) => path),
    fan_in_fan_out: pairs.some(({ module }) => module.transposed),
    bias: "none",
    lora_dropout: 0,
    init_lora_weights: true,
    inference_mode: true,
    use_rslora: false,
    use_dora: false,
    modules_to_save: null,
  };
}
