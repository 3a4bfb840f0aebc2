/** The distinct kinds of linear layers that a model has: what has to be measured, each once. */
import { chooseBlockChunks, storedParts } from "../compress/stored_parts.ts";
import { formatName, ROWS, type Shape2 } from "../kernels/layout.ts";
import type { ArtifactHeader, StoredPart } from "../models/formats/artifact_header.ts";
import type { Recipe } from "../models/recipe.ts";
import {
  LINEAR_INPUT,
  LINEAR_NAMES,
  type LinearKind,
  linearKind,
  type LinearName,
  linearShapes,
  type ModelSpec,
} from "../models/spec.ts";

/** Layers of one input and shape that are stored alike. */
export interface LayerKind {
  /** How many layers of each name there are; names of the same input only. */
  readonly layers: Readonly<Partial<Record<LinearKind, number>>>;
  /** `[dOut, dIn]` */
  readonly shape: Shape2;
  readonly parts: readonly StoredPart[];
}

export interface ModelLayers {
  readonly spec: ModelSpec;
  readonly blockChunks: number;
  readonly kinds: readonly LayerKind[];
}

const PANEL_ROWS = 2 * ROWS;

const LAYER_TENSOR = new RegExp(
  String.raw`^(block\.\d+\.(?:experts\.\d+\.)?(${LINEAR_NAMES.join("|")}))\.([wsuv])$`,
);

/** Ranks that differ by less than a panel of V run alike (rows of V; U takes vectors of half as many columns). */
const bucketed = (parts: readonly StoredPart[]): StoredPart[] => {
  const up = (n: number) => Math.ceil(n / PANEL_ROWS) * PANEL_ROWS;
  return parts.map((p) => {
    const [rows, cols] = p.shape;
    return { ...p, shape: p.part === "v" ? [up(rows), cols] : p.part === "u" ? [rows, up(cols)] : p.shape };
  });
};

/** Of the layers of an artifact, as they are stored. */
export function artifactLayers(header: ArtifactHeader): ModelLayers {
  const layers = new Map<string, { name: LinearKind; parts: StoredPart[] }>();
  for (const { name: tensor, format, shape } of header.tensors) {
    const match = LAYER_TENSOR.exec(tensor);
    if (!match || format.kind === "vector") continue;
    const [, layer, name, part] = match as unknown as [string, string, LinearKind, StoredPart["part"]];
    const parts = layers.get(layer)?.parts ?? [];
    parts.push({ part, format, shape: [shape[0], shape[1]] });
    layers.set(layer, { name, parts });
  }
  return {
    spec: header.spec,
    blockChunks: header.blockChunks,
    kinds: grouped([...layers.values()]),
  };
}

/** Of what compression with this recipe would store, with the same rate in every block. */
export function recipeLayers(spec: ModelSpec, recipe: Recipe & { readonly pattern: "windows" }): ModelLayers {
  const blockChunks = chooseBlockChunks(spec);
  const layers = Object.entries(linearShapes(spec)).flatMap(([name, shape]) => {
    const parts = storedParts(shape!, recipe.rate, { recipe, blockChunks });
    return new Array<{ name: LinearKind; parts: StoredPart[] }>(spec.blocks)
      .fill({ name: linearKind(name as LinearName), parts });
  });
  return { spec, blockChunks, kinds: grouped(layers) };
}

function grouped(
  layers: readonly { readonly name: LinearKind; readonly parts: readonly StoredPart[] }[],
): LayerKind[] {
  const kinds = new Map<string, LayerKind & { layers: Partial<Record<LinearKind, number>> }>();
  for (const { name, parts } of layers) {
    const stored = bucketed(parts), [{ shape }] = parts; // W or S: of the layer's own shape
    const key = JSON.stringify([LINEAR_INPUT[name], shape, stored]);
    const kind = kinds.get(key) ?? { layers: {}, shape, parts: stored };
    kind.layers[name] = (kind.layers[name] ?? 0) + 1;
    kinds.set(key, kind);
  }
  return [...kinds.values()];
}

/** As in "w6q8 + 48": format of S and rank of L. */
export function kindName({ parts }: LayerKind): string {
  const [{ format }] = parts, rank = rankOf(parts);
  return rank === 0 ? formatName(format) : `${formatName(format)} + ${rank}`;
}

/** Rank of L, rounded up to what its packed form takes; 0 without L. */
export const rankOf = (parts: readonly StoredPart[]): number =>
  parts.find(({ part }) => part === "v")?.shape[0] ?? 0;

/** Stored as S and, perhaps, L. */
export const isSparse = ({ parts }: LayerKind): boolean => parts.some(({ part }) => part === "s");
