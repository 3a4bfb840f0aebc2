/** Builds the plan of a model: from the tensors that it has to the operations (plan.ts) that read them. */
import { OatmillError } from "../errors.ts";
import { formatName, groupCount, ROWS, type Shape2 } from "../kernels/layout.ts";
import type { TensorEntry } from "./formats/artifact_header.ts";
import { encoderWeights, type PatchSpec, patchWidth } from "./encoder_spec.ts";
import type { PackedModel } from "./packed.ts";
import {
  blockSpecs,
  type ExpertsSpec,
  hasFinalNorm,
  inputKind,
  type InputName,
  inputOf,
  linearKind,
  type LinearName,
  linearNames,
  linearShapes,
  type ModelSpec,
  normShape,
  routerShape,
} from "./spec.ts";
import type { AdaptableLayer, BufferRef, NormRef, Plan, PlanOp, TileKind } from "./plan.ts";

/**
 * Where the layers of an input write: those of one input side by side, the last two into the residual stream, unless what
 * they add is normalised first.
 */
const outputBuffer = (input: InputName, { norm, mlp }: ModelSpec): string =>
  ({
    attn: "qkv",
    o: norm.placement === "around" ? "branch" : "hidden",
    mlp: "gateUp",
    down: mlp.experts ? "expertOut" : norm.placement === "around" ? "branch" : "hidden",
  })[inputKind(input)];
/** What becomes the tile of an input. */
type TileInput = Pick<PlanOp & { op: "prepare" }, "input" | "activation" | "norm" | "chosen">;

/** A block that is being planned. */
interface PlannedBlock {
  readonly index: number;
  /** Its own. */
  readonly spec: ModelSpec;
  readonly shapes: ReturnType<typeof linearShapes>;
  readonly layers: ReadonlyMap<InputName, readonly LinearName[]>;
}

const at = (buffer: string, column = 0): BufferRef => ({ buffer, column });
/** Columns that a packed layer's rows fill: whole groups. */
export const wholeGroups = (rows: number): number => groupCount(rows) * ROWS;
const paddedRows = (e: TensorEntry): number => wholeGroups(e.shape[0]);

const KIND_OF_FORMAT = { f32: "f32", q8: "q8", q4: "q8", windows: "views" } as const;

/** Kinds that a tile must hold for these packed layers: both views serve those that read one. */
export function kindsOf(consumers: readonly TensorEntry[]): TileKind[] {
  const kinds = new Set(
    consumers.flatMap(({ format }) => format.kind === "vector" ? [] : [KIND_OF_FORMAT[format.kind]]),
  );
  return [...kinds].filter((kind) => kind !== "q8" || !kinds.has("views"));
}

const broken = (why: string) => new OatmillError("invalid_artifact", `Cannot build the plan: ${why}`);

/** The parts that one linear layer is stored as. */
interface LayerParts {
  readonly main: TensorEntry;
  readonly v: TensorEntry | null;
  readonly u: TensorEntry | null;
  readonly bias: string | null;
}

const plain = (input: BufferRef): TileInput => ({ input, activation: null, norm: null });
const normed = (input: BufferRef, norm: NormRef): TileInput => ({ input, activation: null, norm });

/** Adapters add to the layers of decoders, but not to experts': which rows those see is chosen block by block. */
const isAdaptable = ({ attention }: ModelSpec, input: InputName): boolean =>
  attention.causal && inputKind(input) === input;

class Builder {
  body: PlanOp[] = [];
  readonly head: PlanOp[] = [];
  readonly buffers: Record<string, number> = {};
  readonly tiles: Record<string, { cols: number; kinds: TileKind[] }> = {};
  readonly adaptable: AdaptableLayer[] = [];
  readonly #tensors: Map<string, TensorEntry>;

  constructor(readonly spec: ModelSpec, readonly blockChunks: number, tensors: readonly TensorEntry[]) {
    this.#tensors = new Map(tensors.map((t) => [t.name, t]));
  }

  /** A packed tensor of exactly this shape: kernels trust the addresses that follow from it. */
  packed(name: string, shape: Shape2): TensorEntry {
    const t = this.#tensors.get(name);
    if (!t) throw broken(`tensor "${name}" is missing`);
    const { format } = t;
    if (
      format.kind === "vector" || t.shape.length !== 2 || t.shape[0] !== shape[0] || t.shape[1] !== shape[1]
    ) {
      throw broken(`tensor "${name}" is ${format.kind} [${t.shape}], must be a packed layer [${shape}]`);
    }
    if (format.kind === "windows" && format.blockChunks !== this.blockChunks) {
      throw broken(
        `tensor "${name}" has blocks of ${format.blockChunks} chunks, the model ${this.blockChunks}`,
      );
    }
    return t;
  }
  /** Embedding, positions or head: rows that can be looked up. */
  table(name: string, rows = this.spec.vocabSize): TensorEntry {
    const t = this.packed(name, [rows, this.spec.hiddenSize]);
    if (t.format.kind === "f32" || t.format.kind === "q8") return t;
    throw broken(`tensor "${name}" is ${t.format.kind}, must be f32 or q8`);
  }
  /** Name of a vector of `length` floats, null when the model has none of that name. */
  optional(name: string, length: number): string | null {
    const t = this.#tensors.get(name);
    if (!t) return null;
    if (t.format.kind !== "vector" || t.shape.length !== 1 || t.shape[0] !== length) {
      throw broken(`tensor "${name}" is ${t.format.kind} [${t.shape}], must be a vector of ${length}`);
    }
    return name;
  }
  /** What is read as plain floats, outside of the plan: a vector, or a matrix row by row. */
  checkPlain(name: string, shape: readonly number[]): void {
    const t = this.#tensors.get(name);
    if (!t) throw broken(`tensor "${name}" is missing`);
    if (
      t.format.kind !== "vector" || t.shape.length !== shape.length || t.shape.some((n, i) => n !== shape[i])
    ) {
      throw broken(`tensor "${name}" is ${t.format.kind} [${t.shape}], must be plain floats [${shape}]`);
    }
  }
  norm(name: string, shape = normShape(this.spec)): NormRef {
    const weight = this.optional(name, shape.length);
    const bias = this.optional(`${name}.bias`, shape.length);
    if (weight === null || (shape.bias && bias === null)) throw broken(`norm "${name}" is incomplete`);
    return { weight, bias };
  }
  buffer(name: string, cols: number): void {
    this.buffers[name] = Math.max(this.buffers[name] ?? 0, cols);
  }
  /** Declares what a tile holds; a tile name is reused by all blocks. */
  tile(name: string, cols: number, kinds: readonly TileKind[]): void {
    const t = this.tiles[name] ??= { cols: 0, kinds: [] };
    t.cols = Math.max(t.cols, cols);
    for (const k of kinds) if (!t.kinds.includes(k)) t.kinds.push(k);
  }
  /** The operations that `add` puts into the body, apart from it. */
  apart(add: () => void): PlanOp[] {
    const outer = this.body, own: PlanOp[] = [];
    this.body = own;
    add();
    this.body = outer;
    return own;
  }
  parts(layer: string, [dOut, dIn]: Shape2): LayerParts {
    const has = (part: string) => this.#tensors.has(`${layer}.${part}`);
    const main = this.packed(`${layer}.${has("w") ? "w" : "s"}`, [dOut, dIn]);
    const bias = this.optional(`${layer}.bias`, dOut);
    if (!has("v") && !has("u")) return { main, v: null, u: null, bias };
    const rank = this.#tensors.get(`${layer}.v`)?.shape[0] ?? 0;
    return {
      main,
      v: this.packed(`${layer}.v`, [rank, dIn]),
      u: this.packed(`${layer}.u`, [dOut, rank]),
      bias,
    };
  }

  /**
   * All linear layers of one input: prepare it once, then every main part and every V; the low-rank products are
   * prepared in turn and added by U. What adapters add goes the same two ways.
   */
  linears(block: PlannedBlock, input: InputName, from: TileInput): void {
    const { index, spec, shapes, layers: byInput } = block;
    const prefix = `block.${index}`, inputTile = inputKind(input);
    const layers = byInput.get(input)!.map((n) => ({
      name: n,
      tile: `low.${linearKind(n)}`,
      ...this.parts(`${prefix}.${n}`, shapes[n]!),
    }));
    const kinds = kindsOf(layers.flatMap((l) => l.v ? [l.main, l.v] : [l.main]));
    const cols = layers[0].main.shape[1];
    this.tile(inputTile, cols, kinds);
    this.body.push({
      op: "prepare",
      ...from,
      scale: this.optional(`${prefix}.${input}.scale`, cols),
      cols,
      tile: inputTile,
      kinds,
    }, { op: "sync", prepared: true });
    const buffer = outputBuffer(input, spec);
    const outs = this.#streams(layers.map((l) => ({ weight: l.main, bias: l.bias })), {
      tile: inputTile,
      buffer,
      accumulate: buffer === "hidden",
    });
    const ranked = layers.flatMap((l, i) => l.v && l.u ? [{ ...l, v: l.v, u: l.u, out: outs[i] }] : []);
    const lows = this.#streams(ranked.map((l) => ({ weight: l.v, bias: null })), {
      tile: inputTile,
      buffer: "low",
      accumulate: false,
    });
    const outOf = new Map(layers.map(({ name }, i) => [name, outs[i]]));
    const adapt = isAdaptable(spec, input) ? this.#adapt(block, { ...from, cols, outOf }) : null;
    if (adapt) this.body.push(adapt.in);
    this.body.push({ op: "sync" });
    if (ranked.length > 0) this.#lowRank(ranked, lows);
    if (adapt) this.body.push(adapt.out);
    if (ranked.length > 0) this.body.push({ op: "sync" });
    else if (adapt) this.body.push({ op: "sync", adapted: true });
  }

  /** Numbers the layers of one input that adapters may add to. */
  #adapt(
    { index: block, shapes }: PlannedBlock,
    { input, activation, norm, cols, outOf }: TileInput & {
      readonly cols: number;
      readonly outOf: ReadonlyMap<LinearName, BufferRef>;
    },
  ): { readonly in: PlanOp; readonly out: PlanOp } {
    const layers = [...outOf].map(([name, out]) => {
      const index = this.adaptable.push({ name: `block.${block}.${name}`, shape: shapes[name]! }) - 1;
      return { index, out };
    });
    const indices = layers.map(({ index }) => index);
    return {
      in: { op: "adapt_in", block, input, activation, norm, cols, layers: indices },
      out: { op: "adapt_out", block, layers },
    };
  }

  /** Prepares the products of every V and adds those of every U; not yet synchronised. */
  #lowRank(
    ranked: readonly { readonly u: TensorEntry; readonly tile: string; readonly out: BufferRef }[],
    lows: readonly BufferRef[],
  ): void {
    ranked.forEach((l, i) => {
      const kinds = kindsOf([l.u]);
      const cols = l.u.shape[1], { tile } = l;
      this.tile(tile, cols, kinds);
      this.body.push({ op: "prepare", ...plain(lows[i]), scale: null, cols, tile, kinds });
    });
    this.body.push({ op: "sync", prepared: true });
    for (const l of ranked) {
      const { tile, out } = l;
      this.body.push({ op: "linear", weights: [l.u.name], biases: [], tile, out, accumulate: true });
    }
  }

  /**
   * Side by side into one buffer; neighbours of one format are one stream, if all or none have a bias. Returns where each
   * one writes.
   */
  #streams(
    parts: readonly { weight: TensorEntry; bias: string | null }[],
    o: { tile: string; buffer: string; accumulate: boolean },
  ): BufferRef[] {
    const outs: BufferRef[] = [];
    let column = 0;
    let last: { kind: string; weights: string[]; biases: string[] } | null = null;
    for (const { weight, bias } of parts) {
      const out = at(o.buffer, column);
      outs.push(out);
      column += paddedRows(weight);
      const kind = JSON.stringify([weight.format, bias !== null]);
      if (last === null || last.kind !== kind) {
        last = { kind, weights: [], biases: [] };
        const { weights, biases } = last;
        this.body.push({ op: "linear", weights, biases, tile: o.tile, out, accumulate: o.accumulate });
      }
      last.weights.push(weight.name);
      if (bias !== null) last.biases.push(bias);
    }
    this.buffer(o.buffer, column);
    return outs;
  }
}

/**
 * Builds the plan of a decoder, or of an encoder (no head).
 * @throws {OatmillError} invalid_artifact when a tensor is missing or has another shape than the spec says
 */
export function buildPlan(model: PackedModel): Plan {
  const { spec } = model;
  const b = new Builder(spec, model.blockChunks, model.tensors);
  b.buffer("hidden", spec.hiddenSize);
  addEmbedding(b);
  blockSpecs(spec).forEach((own, i) => addBlock(b, i, own));
  b.buffer("headIn", spec.hiddenSize);
  for (const { role, shape, bias, packed } of encoderWeights(spec)) {
    if (!packed) b.checkPlain(role, shape);
    if (bias > 0) b.checkPlain(`${role}.bias`, [bias]);
  }
  const output = spec.attention.causal ? logitsOf(b) : statesOf(b);
  const modules = new Set(
    model.tensors.flatMap((t) => t.format.kind === "vector" ? [] : [formatName(t.format)]),
  );
  return {
    body: b.body,
    head: b.head,
    output,
    buffers: b.buffers,
    tiles: b.tiles,
    modules: [...modules],
    // The embedding is stored in one of the two.
    adapters: { format: { kind: modules.has("q8") ? "q8" : "f32" }, layers: b.adaptable },
  };
}

function addEmbedding(b: Builder): void {
  const { embeddingScale: factor = 1, learnedPositions, contextLength, encoder } = b.spec;
  if (encoder?.patches) return addPatches(b, encoder.patches);
  const embed = { op: "embed", out: at("hidden") } as const;
  b.body.push({ ...embed, table: b.table("embedding").name, by: "token", factor, accumulate: false });
  if (learnedPositions) {
    const table = b.table("positions", contextLength).name;
    b.body.push({ ...embed, table, by: "position", factor: 1, accumulate: true });
  }
  if (encoder && encoder.tokenTypes > 0) {
    const table = b.table("tokenTypes", encoder.tokenTypes).name;
    b.body.push({ ...embed, table, by: "type", factor: 1, accumulate: true });
  }
  b.body.push({ op: "sync" });
  addEmbeddingNorm(b);
}

/** `hidden` holds what does not depend on the image's values (image_input.ts): the patches' projections are added. */
function addPatches(b: Builder, patches: PatchSpec): void {
  const cols = patchWidth(patches),
    weight = b.packed("patch", [b.spec.hiddenSize, cols]),
    kinds = kindsOf([weight]);
  b.buffer("patches", cols);
  b.tile("patch", cols, kinds);
  b.body.push(
    { op: "prepare", ...plain(at("patches")), scale: null, cols, tile: "patch", kinds },
    { op: "sync", prepared: true },
    { op: "linear", weights: [weight.name], biases: [], tile: "patch", out: at("hidden"), accumulate: true },
    { op: "sync" },
  );
  addEmbeddingNorm(b);
}

function addEmbeddingNorm(b: Builder): void {
  if (!b.spec.encoder?.embeddingNorm) return;
  const hidden = at("hidden"), norm = b.norm("embeddingNorm");
  b.body.push({ op: "norm", input: hidden, norm, out: hidden, accumulate: false }, { op: "sync" });
}

/** @param spec the block's own */
function addBlock(b: Builder, index: number, spec: ModelSpec): void {
  const p = `block.${index}`, { placement = "before" } = spec.norm;
  const layers = Map.groupBy(linearNames(spec), inputOf);
  const block: PlannedBlock = { index, spec, shapes: linearShapes(spec), layers };
  const hidden = (norm: string): TileInput =>
    placement === "after" ? plain(at("hidden")) : normed(at("hidden"), b.norm(norm));
  /** After `o` and `down`: what they added, or will have added once it is normalised. */
  const close = (input: "attn" | "mlp") => {
    if (placement === "before") return;
    const [source, name, accumulate] = placement === "after"
      ? ["hidden", `${p}.${input}Norm`, false] as const
      : ["branch", `${p}.${input}PostNorm`, true] as const;
    b.body.push(
      { op: "norm", input: at(source), norm: b.norm(name), out: at("hidden"), accumulate },
      { op: "sync" },
    );
  };
  const addMlp = () => b.linears(block, "mlp", hidden(`${p}.mlpNorm`));
  b.linears(block, "attn", hidden(`${p}.attnNorm`));
  addAttention(b, index, spec);
  if (spec.parallel) addMlp(); // reads what attention has read: before `o` adds to it
  b.linears(block, "o", plain(at("attnOut")));
  close("attn");
  if (spec.mlp.experts) return addExperts(b, block, spec.mlp.experts);
  if (!spec.parallel) addMlp();
  b.linears(block, "down", activated(spec));
  close("mlp");
}

/** What `down` reads: of the outputs of gate and up. */
function activated({ mlp: { activation: kind, gated, intermediateSize } }: ModelSpec): TileInput {
  return {
    input: at("gateUp", gated ? wholeGroups(intermediateSize) : 0),
    activation: { kind, gate: gated ? at("gateUp") : null },
    norm: null,
  };
}

/** The router, and the MLP of each expert over the rows that chose it. */
function addExperts(b: Builder, block: PlannedBlock, experts: ExpertsSpec): void {
  const { index, spec } = block, cols = spec.hiddenSize, hidden = at("hidden");
  if (spec.parallel || (spec.norm.placement ?? "before") !== "before") {
    throw broken("experts read what is normalised before them, behind attention");
  }
  const router = b.packed(`block.${index}.router`, routerShape(spec)!);
  if (router.format.kind !== "f32") {
    throw broken(`tensor "${router.name}" is ${router.format.kind}, must be f32`);
  }
  const out = at("mlpIn"), shares = at("shares"), added = at("expertOut");
  b.buffer(out.buffer, cols);
  b.buffer(shares.buffer, wholeGroups(experts.count));
  const norm = b.norm(`block.${index}.mlpNorm`);
  b.body.push({ op: "route", input: hidden, norm, out, router: router.name, shares, experts }, {
    op: "sync",
  });
  const each = Array.from({ length: experts.count }, (_, expert) =>
    b.apart(() => {
      b.linears(block, `experts.${expert}.mlp`, { ...plain(out), chosen: true });
      b.linears(block, `experts.${expert}.down`, activated(spec));
      b.body.push({ op: "add_chosen", input: added, out: hidden, cols });
    }));
  b.body.push({ op: "experts", shares, each }, { op: "sync" });
}

/** From q, k and v, as the layers leave them, to `attnOut`. */
function addAttention(b: Builder, block: number, { attention }: ModelSpec): void {
  const { heads, kvHeads, headDim, rope, headNorms } = attention;
  const q = at("qkv"), k = at("qkv", wholeGroups(heads * headDim));
  const v = at("qkv", k.column + wholeGroups(kvHeads * headDim));
  b.buffer("attnOut", heads * headDim);
  const turned = [{ name: "q", x: q, heads }, { name: "k", x: k, heads: kvHeads }] as const;
  for (const { name, x, heads } of headNorms ? turned : []) {
    const { weight } = b.norm(`block.${block}.${name}Norm`, { length: headDim, bias: false });
    b.body.push({ op: "norm_heads", x, heads, weight });
  }
  for (const { x, heads } of rope ? turned : []) b.body.push({ op: "rope", block, x, heads });
  b.body.push({ op: "kv_write", block, k, v }, { op: "sync" });
  b.body.push({ op: "attention", block, q, out: at("attnOut") }, { op: "sync" });
}

/** A decoder's output: final norm and head. */
function logitsOf(b: Builder): Plan["output"] {
  const { spec } = b;
  const head = b.table(spec.tiedEmbeddings ? "embedding" : "head");
  const bias = b.optional("head.bias", spec.vocabSize);
  b.buffer("logits", head.shape[0]);
  b.tile("head", spec.hiddenSize, kindsOf([head]));
  b.head.push(
    {
      op: "prepare",
      ...(hasFinalNorm(spec) ? normed(at("headIn"), b.norm("finalNorm")) : plain(at("headIn"))),
      scale: b.optional("head.scale", spec.hiddenSize),
      cols: spec.hiddenSize,
      tile: "head",
      kinds: kindsOf([head]),
    },
    { op: "sync", prepared: true },
    {
      op: "linear",
      weights: [head.name],
      biases: bias === null ? [] : [bias],
      tile: "head",
      out: at("logits"),
      accumulate: false,
    },
    { op: "sync" },
  );
  const cap = spec.logitsSoftCap, cols = head.shape[0];
  if (cap) b.head.push({ op: "soft_cap", x: at("logits"), cols, cap }, { op: "sync" });
  return { buffer: "logits", cols };
}

/** An encoder's output: the hidden states, normalised if the model has a norm for them. */
function statesOf(b: Builder): Plan["output"] {
  const cols = b.spec.hiddenSize;
  if (b.spec.attention.window !== null) throw broken("an encoder sees its whole input, without a window");
  b.buffer("states", cols);
  const input = at("headIn"), out = at("states");
  b.head.push(
    hasFinalNorm(b.spec)
      ? { op: "norm", input, norm: b.norm("finalNorm"), out, accumulate: false }
      : { op: "copy", input, out, cols },
    { op: "sync" },
  );
  return { buffer: "states", cols };
}
