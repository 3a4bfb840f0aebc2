/** Where each weight of a spec lies among a file's tensors. */
import type { WeightRole } from "../checkpoint.ts";
import { type LinearName, linearShapes, type ModelSpec } from "../spec.ts";
import type { TensorNames } from "./family.ts";

export interface WeightLocation {
  readonly tensor: string;
  /** Rows of the tensor before this weight's (fused weights; otherwise 0). */
  readonly firstRow: number;
  /** Rows of the whole tensor. */
  readonly tensorRows: number;
  /** `[dOut, dIn]` or `[n]` of this weight. */
  readonly shape: readonly number[];
  /** Heads whose rows are interleaved and must be put back in "rotate half" order; 0 = none. */
  readonly interleavedHeads: number;
}

/**
 * All weights that `spec` needs. `head` of a tied model is the embedding.
 * @param permutedRows the rows of q and k lie interleaved (llama GGUF)
 */
export function weightLocations(
  spec: ModelSpec,
  names: TensorNames,
  permutedRows = false,
): Map<WeightRole, WeightLocation> {
  const locations = new Map<WeightRole, WeightLocation>();
  const add = (
    role: WeightRole,
    tensor: string,
    shape: readonly number[],
    more: Partial<WeightLocation> = {},
  ) =>
    locations.set(role, { tensor, firstRow: 0, tensorRows: shape[0], shape, interleavedHeads: 0, ...more });
  const addNorm = (role: WeightRole, name: string) => {
    add(role, `${name}.weight`, [spec.hiddenSize]);
    if (spec.norm.kind === "layernorm") add(`${role}.bias`, `${name}.bias`, [spec.hiddenSize]);
  };
  const table = [spec.vocabSize, spec.hiddenSize];
  add("embedding", `${names.embedding}.weight`, table);
  add("head", `${spec.tiedEmbeddings ? names.embedding : names.head}.weight`, table);
  addNorm("finalNorm", names.finalNorm);

  const shapes = linearShapes(spec);
  const { heads, kvHeads } = spec.attention;
  for (let block = 0; block < spec.blocks; block++) {
    const prefix = names.block.replace("{block}", String(block));
    addNorm(`block.${block}.attnNorm`, prefix + names.attnNorm);
    addNorm(`block.${block}.mlpNorm`, prefix + names.mlpNorm);
    for (const name of Object.keys(shapes) as LinearName[]) {
      const shape = shapes[name]!;
      const stored = names.linear[name];
      if (!stored) throw new RangeError(`No tensor name for ${name}`);
      const [tensor, parts] = typeof stored === "string" ? [stored, [name]] : [stored.tensor, stored.parts];
      const rows = (list: readonly LinearName[]) => list.reduce((sum, part) => sum + shapes[part]![0], 0);
      const place = {
        firstRow: rows(parts.slice(0, parts.indexOf(name))),
        tensorRows: rows(parts),
        interleavedHeads: permutedRows ? ({ q: heads, k: kvHeads } as Record<string, number>)[name] ?? 0 : 0,
      };
      add(`block.${block}.${name}`, `${prefix}${tensor}.weight`, shape, place);
      if (spec.biases.includes(name)) {
        add(`block.${block}.${name}.bias`, `${prefix}${tensor}.bias`, [shape[0]], place);
      }
    }
  }
  return locations;
}
