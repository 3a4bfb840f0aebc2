/** Where each weight of a spec lies among a file's tensors. */
import type { WeightRole } from "../checkpoint.ts";
import { CHANNELS, encoderWeights } from "../encoder_spec.ts";
import {
  blockNorms,
  hasFinalNorm,
  type LinearKind,
  linearKind,
  linearNames,
  linearShapes,
  type ModelSpec,
  type NormName,
  type NormShape,
  normShape,
  readsTokens,
  routerShape,
} from "../spec.ts";
import type { TensorSource } from "../tensor_source.ts";
import type { EncoderTensor, ExpertNames, FusedName, TensorNames } from "./family.ts";

/** Which rows of a tensor are a weight's: `count` runs of the same length, `apart` rows from one's start to the next. */
export interface RowRuns {
  readonly first: number;
  readonly count: number;
  readonly apart: number;
}

export interface WeightLocation {
  readonly tensor: string;
  /** Of the whole tensor. */
  readonly tensorShape: readonly number[];
  readonly rows: RowRuns;
  /** `[dOut, dIn]` or `[n]` of this weight. */
  readonly shape: readonly number[];
  /** Heads whose rows are interleaved and must be put back in "rotate half" order; 0 = none. */
  readonly interleavedHeads: number;
  /** The tensor is stored `[dIn, rows]`. */
  readonly transposed: boolean;
  /** Added to every value. */
  readonly offset: number;
  /** Vector whose entries the rows are multiplied by (layer scale); null: none. */
  readonly rowFactors: string | null;
  /** The weight is the tensor times this one `[width of the tensor, dIn]`, or times its transpose; null: as it is. */
  readonly times:
    | { readonly tensor: string; readonly shape: readonly number[]; readonly transposed: boolean }
    | null;
}

/** Rows `first` and following, as many as the weight has. */
const from = (first: number): RowRuns => ({ first, count: 1, apart: 0 });

export interface LocationOptions {
  /** The file; without it names have no prefix and there are no projections. */
  readonly source?: Pick<TensorSource, "info">;
  /** The rows of q and k lie interleaved (llama GGUF). */
  readonly permutedRows?: boolean;
}

/** All weights that `spec` needs. `head` of a tied model is the embedding. */
export function weightLocations(
  spec: ModelSpec,
  names: TensorNames,
  { source, permutedRows = false }: LocationOptions = {},
): Map<WeightRole, WeightLocation> {
  const has = (name: string) => source?.info(`${name}.weight`) !== undefined;
  const prefix = names.prefixes?.find((p) => has(p + names.embedding)) ?? names.prefixes?.[0] ?? "";
  const locations = new Map<WeightRole, WeightLocation>();
  const add = (
    role: WeightRole,
    tensor: string,
    shape: readonly number[],
    more: Partial<WeightLocation> = {},
  ) => locations.set(role, { ...PLAIN, tensor, tensorShape: shape, shape, ...more });
  const addNorm = (role: WeightRole, name: string, { length, bias }: NormShape) => {
    // The first BERTs were published with TensorFlow's names.
    const [weight, other] = source?.info(`${name}.gamma`) ? ["gamma", "beta"] : ["weight", "bias"];
    add(role, `${name}.${weight}`, [length], { offset: names.normOffset ?? 0 });
    if (bias) add(`${role}.bias`, `${name}.${other}`, [length]);
  };
  const embedding = prefix + names.embedding, table = [spec.vocabSize, spec.hiddenSize];
  const projected = (name: string | undefined, transposed: boolean) => {
    const shape = name && !spec.tiedEmbeddings ? source?.info(`${prefix}${name}.weight`)?.shape : undefined;
    if (!shape) return null;
    const times = { tensor: `${prefix}${name}.weight`, shape, transposed };
    return { times, tensorShape: [spec.vocabSize, shape[transposed ? 1 : 0]] };
  };
  const first = projected(names.projections?.in, true), last = projected(names.projections?.out, false);
  if (readsTokens(spec)) {
    add("embedding", `${embedding}.weight`, table, first ?? {});
    add("head", `${spec.tiedEmbeddings || last ? embedding : names.head}.weight`, table, last ?? {});
  }
  if (spec.learnedPositions && names.positions) {
    const { tensor, firstRow } = names.positions, { contextLength, hiddenSize } = spec;
    add("positions", `${prefix}${tensor}.weight`, [contextLength, hiddenSize], {
      tensorShape: [firstRow + contextLength, hiddenSize],
      rows: from(firstRow),
    });
  }
  if (hasFinalNorm(spec)) addNorm("finalNorm", prefix + named(names.finalNorm, "finalNorm"), normShape(spec));
  addEncoder(spec, { prefix, names, add, addNorm });

  const norms = Object.entries(blockNorms(spec)) as [NormName, NormShape][];
  const shapes = linearShapes(spec), router = routerShape(spec);
  const { heads, kvHeads } = spec.attention;
  for (let block = 0; block < spec.blocks; block++) {
    const own = prefix + names.block.replace("{block}", String(block));
    for (const [name, shape] of norms) {
      addNorm(`block.${block}.${name}`, own + named(names.norms[name], name), shape);
    }
    const experts = router && expertNames(names, (name) => has(own + name));
    if (experts) add(`block.${block}.router`, `${own}${experts.router}.weight`, router);
    for (const name of linearNames(spec)) {
      const shape = shapes[name]!, expert = EXPERT_LAYER.exec(name);
      if (experts && expert) {
        const { tensor, ...place } = expertPlace(expert.groups as unknown as ExpertLayer, {
          experts,
          shapes,
          count: router![0],
        });
        add(`block.${block}.${name}`, own + tensor, shape, place);
        continue;
      }
      const kind = linearKind(name), stored = named(names.linear[kind], name);
      const tensor = own + (typeof stored === "string" ? stored : stored.tensor);
      const { rows, all } = typeof stored === "string"
        ? { rows: from(0), all: shape[0] }
        : fusedRows(kind, stored, spec);
      const place = {
        rows,
        interleavedHeads: permutedRows ? ({ q: heads, k: kvHeads } as Record<string, number>)[name] ?? 0 : 0,
      };
      const transposed = names.transposed ?? false, size = [all, shape[1]];
      const scale = name === "o" || name === "down" ? names.layerScale?.[name] : undefined;
      const rowFactors = scale ? own + scale : null;
      add(`block.${block}.${name}`, `${tensor}.weight`, shape, {
        ...place,
        rowFactors,
        transposed,
        tensorShape: transposed ? size.reverse() : size,
      });
      if (spec.biases.includes(kind)) {
        add(`block.${block}.${name}.bias`, `${tensor}.bias`, [shape[0]], {
          ...place,
          rowFactors,
          tensorShape: [all],
        });
      }
    }
  }
  return locations;
}

const PLAIN = {
  rows: from(0),
  interleavedHeads: 0,
  transposed: false,
  offset: 0,
  rowFactors: null,
  times: null,
};

interface Adders {
  readonly prefix: string;
  readonly names: TensorNames;
  readonly add: (
    role: WeightRole,
    tensor: string,
    shape: readonly number[],
    more?: Partial<WeightLocation>,
  ) => void;
  readonly addNorm: (role: WeightRole, name: string, shape: NormShape) => void;
}

/** What stands before and behind an encoder's blocks. */
function addEncoder(spec: ModelSpec, { prefix, names, add, addNorm }: Adders): void {
  for (const { role, shape, bias } of encoderWeights(spec)) {
    const stored = role === "patch"
      ? { tensor: names.embedding }
      : role === "finalNorm"
      ? { tensor: named(names.finalNorm, role) }
      : named(names.encoder?.[role], role);
    const { tensor, bare, parameter }: EncoderTensor = stored, name = bare ? tensor : prefix + tensor;
    if (role === "embeddingNorm" || role === "finalNorm") {
      addNorm(role, name, normShape(spec));
      continue;
    }
    const { size = 0 } = spec.encoder?.patches ?? {};
    const tensorShape = role === "patch"
      ? [shape[0], CHANNELS, size, size]
      : [...Array<number>(parameter?.ones ?? 0).fill(1), ...shape];
    add(role, parameter ? name : `${name}.weight`, shape, { tensorShape });
    if (bias > 0) add(`${role}.bias`, `${name}.bias`, [bias]);
  }
}

function named<T>(name: T | undefined, what: string): T {
  if (name === undefined) throw new RangeError(`No tensor name for ${what}`);
  return name;
}

const EXPERT_LAYER = /^experts\.(?<expert>\d+)\.(?<kind>\w+)$/;
interface ExpertLayer {
  readonly expert: string;
  readonly kind: LinearKind;
}

/** The way whose router the file has; where none is there, the first says what is missing. */
function expertNames({ experts = [] }: TensorNames, has: (name: string) => boolean): ExpertNames {
  return named(experts.find(({ router }) => has(router)) ?? experts[0], "experts");
}

/** An expert's layer: a tensor of its own, or its rows of one that holds those of all experts. */
function expertPlace(
  { expert, kind }: ExpertLayer,
  { experts: { linear }, shapes, count }: {
    readonly experts: ExpertNames;
    readonly shapes: ReturnType<typeof linearShapes>;
    readonly count: number;
  },
): Pick<WeightLocation, "tensor" | "tensorShape" | "rows"> {
  const shapeOf = (part: LinearKind) => shapes[`experts.${expert}.${part}`];
  const shape = shapeOf(kind), stored = named(linear[kind], kind);
  if (typeof stored === "string") {
    return {
      tensor: `${stored.replace("{expert}", expert)}.weight`,
      tensorShape: shape,
      rows: from(0),
    };
  }
  const rowsOf = (parts: readonly LinearKind[]) => parts.reduce((sum, part) => sum + shapeOf(part)[0], 0);
  const { tensor, parts } = stored, all = rowsOf(parts);
  return {
    tensor,
    tensorShape: [count, all, shape[1]],
    rows: from(Number(expert) * all + rowsOf(parts.slice(0, parts.indexOf(kind)))),
  };
}

/** Where a layer's rows lie among those of a fused weight, and how many there are of all. */
function fusedRows(
  name: LinearKind,
  { parts, byKvHead }: FusedName,
  spec: ModelSpec,
): { readonly rows: RowRuns; readonly all: number } {
  const shapes = linearShapes(spec), count = byKvHead ? spec.attention.kvHeads : 1;
  const rowsOf = (list: readonly LinearKind[]) => list.reduce((sum, part) => sum + shapes[part]![0], 0);
  const all = rowsOf(parts);
  return {
    rows: { first: rowsOf(parts.slice(0, parts.indexOf(name))) / count, count, apart: all / count },
    all,
  };
}
