/** The numbers behind the tables and charts of an inspected model: header and insight joined by layer. */
import type { ArtifactHeader, TensorEntry } from "../../models/formats/artifact_header.ts";
import type { Insight } from "../../models/formats/insight_file.ts";

export interface LayerFigures {
  /** `block.I.NAME` */
  readonly name: string;
  readonly block: number;
  /** `q`, `k`, ... */
  readonly layer: string;
  readonly rate: number | null;
  readonly rank: number | null;
  readonly kept: number | null;
  readonly bits: number | null;
  readonly values: string | null;
  readonly bytes: number | null;
  readonly error: number | null;
  readonly inputError: number | null;
  readonly outliers: readonly number[] | null;
  /** Of W diag(d), or of W where the inputs are not known. */
  readonly effectiveRank: number | null;
  readonly energyOfRank: number | null;
  /** Share of the windows' places that hold a value. */
  readonly filled: number | null;
}

const LAYER = /^block\.(\d+)\.(.+)$/;

/** Of every layer that either knows, in the model's order. */
export function layerFigures(header: ArtifactHeader | null, insight: Insight | null): LayerFigures[] {
  const reports = new Map(header?.layers.map((layer) => [layer.name, layer]));
  const measured = new Map(insight?.layers.map((layer) => [layer.name, layer]));
  const bytes = layerBytes(header?.tensors ?? []);
  return [...new Set([...reports.keys(), ...measured.keys()])].map((name) => {
    const report = reports.get(name), layer = measured.get(name), match = LAYER.exec(name);
    const spectrum = layer?.scaled ?? layer?.plain, windows = layer?.windows;
    return {
      name,
      block: Number(match?.[1] ?? 0),
      layer: match?.[2] ?? name,
      rate: report?.rate ?? null,
      rank: report?.rank ?? null,
      kept: report?.kept ?? null,
      bits: report?.bits ?? null,
      values: report?.values ?? null,
      bytes: bytes.get(name) ?? null,
      error: report?.error ?? null,
      inputError: layer?.inputError ?? null,
      outliers: layer?.outliers ?? null,
      effectiveRank: spectrum?.effectiveRank ?? null,
      energyOfRank: spectrum?.energyOfRank ?? null,
      filled: windows && windows.places > 0 ? windows.filled / windows.places : null,
    };
  });
}

/** Bytes of the packed tensors of each `block.I.NAME`. */
function layerBytes(tensors: readonly TensorEntry[]): Map<string, number> {
  const sums = new Map<string, number>();
  for (const { name, bytes } of tensors) {
    const layer = /^(block\.\d+\..+)\.[wsuv]$/.exec(name)?.[1];
    if (layer) sums.set(layer, (sums.get(layer) ?? 0) + bytes);
  }
  return sums;
}

/** What a tensor is for, by the end of its name. */
const KINDS: readonly (readonly [RegExp, string])[] = [
  [/\.s$/, "sparse S"],
  [/\.[uv]$/, "low-rank U and V"],
  [/\.w$/, "dense layers"],
  [/\.router$/, "routers"],
  [/^embedding$/, "embedding"],
  [/^head$/, "head"],
];

/** Bytes of an artifact by kind of tensor, the largest first. */
export function bytesByKind(
  tensors: readonly TensorEntry[],
): { readonly kind: string; readonly bytes: number }[] {
  const sums = new Map<string, number>();
  for (const { name, bytes } of tensors) {
    const kind = KINDS.find(([pattern]) => pattern.test(name))?.[1] ?? "norms, biases, scales";
    sums.set(kind, (sums.get(kind) ?? 0) + bytes);
  }
  return [...sums].map(([kind, bytes]) => ({ kind, bytes })).sort((a, b) => b.bytes - a.bytes);
}
