/** A model's tensors under the names of its family, dense or in their parts. */
import { OatmillError } from "../errors.ts";
import type { WeightRole } from "../models/checkpoint.ts";
import { weightLocations } from "../models/families/mod.ts";
import type { DenseModel } from "./dense_model.ts";
import type { DenseWeights } from "./dense_weights.ts";
import { buildTensor, storedTensors } from "./stored_tensors.ts";

export interface NamedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Values, row-major. */
  read(): Promise<Float32Array<ArrayBuffer>>;
}

/** @throws {OatmillError} unsupported_format when parts are asked of a model that is no artifact */
export function tensorsOf(model: DenseModel, { parts = false }: { readonly parts?: boolean }): NamedTensor[] {
  if (!parts) return denseTensors(model);
  if (model.parts) return partTensors(model, model.parts);
  throw new OatmillError(
    "unsupported_format",
    `Cannot export the parts of "${model.name}": it is no artifact, its layers have none`,
  );
}

function denseTensors({ weights, family }: DenseModel): NamedTensor[] {
  return storedTensors(weights.spec, family.names).map((tensor) => ({
    name: tensor.name,
    shape: tensor.shape,
    read: () => buildTensor(tensor, (role) => weights.read(role)),
  }));
}

/**
 * As the dense ones, but of a linear layer called NAME.weight there are `NAME.sparse` [dOut, dIn] and, when it has a
 * low-rank part, `NAME.lowrank_u` [dOut, rank] and `NAME.lowrank_v` [rank, dIn]: W = sparse + lowrank_u lowrank_v. Layers
 * that the family stores as one are told apart by Oatmill's name, as in `qkv_proj.q.sparse`, and none is transposed.
 */
function partTensors({ weights: { spec }, family }: DenseModel, parts: DenseWeights): NamedTensor[] {
  const stored = storedTensors(spec, family.names), locations = weightLocations(spec, family.names);
  const isLayer = (role: WeightRole) => parts.isLayer(role);
  const others = stored.filter((tensor) => !tensor.parts.some(({ role }) => isLayer(role)));
  const layers = stored.flatMap((tensor) => tensor.parts.filter(({ role }) => isLayer(role)));
  return [
    ...others.map((tensor) => ({
      name: tensor.name,
      shape: tensor.shape,
      read: () => buildTensor(tensor, (role) => parts.read(role)),
    })),
    ...layers.flatMap(({ role }) => {
      const { tensor } = locations.get(role)!;
      const shared = stored.find(({ name }) => name === tensor)!.parts.length > 1;
      return layerTensors(
        tensor.replace(/\.weight$/, shared ? `.${role.split(".").at(-1)}` : ""),
        role,
        parts,
      );
    }),
  ];
}

function layerTensors(name: string, role: WeightRole, parts: DenseWeights): NamedTensor[] {
  const { shape: [dOut, dIn], rank } = parts.layerSize(role);
  const sparse = {
    name: `${name}.sparse`,
    shape: [dOut, dIn],
    read: () => Promise.resolve(parts.readParts(role).sparse),
  };
  if (rank === 0) return [sparse];
  const factor = (part: "u" | "v", shape: readonly number[]): NamedTensor => ({
    name: `${name}.lowrank_${part}`,
    shape,
    read: () => Promise.resolve(parts.readParts(role).lowRank![part]),
  });
  return [sparse, factor("u", [dOut, rank]), factor("v", [rank, dIn])];
}
