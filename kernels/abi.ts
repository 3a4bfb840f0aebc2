/**
 * The calling conventions of the generated WASM functions. All pointers are byte addresses in the one shared memory
 * that every module imports as `env.memory`; all activations outside a linear layer are token-major f32
 * `[rows, stride]`, strides in floats, 16-byte aligned rows.
 *
 * A *tile* is 1, 2, 4 or 8 token rows prepared for a linear layer:
 * - for `f32` weights: floats `[dIn][B]` (written by `interleave_bB`)
 * - for the others (written by `quantize_bB`): view A bytes `[chunks x 4 windows][B][16]`, view B bytes in the same shape
 *   (the windows of layout.ts), and scales f32 `[chunks][B]` (a block's scale repeated for each of its chunks).
 *   Byte = round(x x columnScale / scale) + offset; scale = absmax of the block / max code of the encoding.
 *   Padding columns hold the offset, so they contribute nothing.
 */

/** How the machine reads activation bytes in relaxed dot products; found by `probeEncoding()`. */
export interface ActivationEncoding {
  /** Added to the signed code: 128 (u8, x86), 0 (s8, ARM), 64 (7 bits: safe everywhere). */
  readonly offset: 128 | 0 | 64;
  /** Largest absolute code: 127 or 63. */
  readonly maxCode: 127 | 63;
}

/**
 * Linear layer on one tile: rows 4g..4g+3 of `groups` groups from address `w`, which starts a panel.
 * y[t x yStride + 4g + lane] = (accumulate ? itself : 0) + sum. For `f32`: xb and xs are unused and `chunks` is dIn.
 * `formatArgument` is what only some formats need: `blockChunks` of windows, the vectors in the last chunk of `q8` and
 * `q4`; layout.ts `formatArgument()` gives it. Exported by each format's module as `mv_b1`, `mv_b2`, `mv_b4`, `mv_b8`.
 */
export type LinearKernel = (
  w: number,
  xa: number,
  xb: number,
  xs: number,
  y: number,
  yStride: number,
  groups: number,
  chunks: number,
  formatArgument: number,
  accumulate: number,
  consts: number,
) => void;

/** Reads rows of a packed table: times `factor`, added to `out` when `accumulate` is 1. */
type EmbedKernel = (
  table: number,
  groups: number,
  ids: number,
  rows: number,
  cols: number,
  out: number,
  outStride: number,
  factor: number,
  accumulate: number,
) => void;

/** Exports of the `base` module. B is 1, 2, 4 or 8. */
export interface BaseKernels {
  /** quantize_bB: `columnScale` f32 [cols] or 0 (none). `xb` may be 0 when no window format reads the tile. */
  quantize: (
    x: number,
    xStride: number,
    cols: number,
    chunks: number,
    blockChunks: number,
    columnScale: number,
    xa: number,
    xb: number,
    xs: number,
    consts: number,
  ) => void;
  /** interleave_bB */
  interleave: (x: number, xStride: number, cols: number, columnScale: number, out: number) => void;
  rmsnorm: (
    x: number,
    xStride: number,
    weight: number,
    out: number,
    outStride: number,
    cols: number,
    rows: number,
    eps: number,
  ) => void;
  layernorm: (
    x: number,
    xStride: number,
    weight: number,
    bias: number,
    out: number,
    outStride: number,
    cols: number,
    rows: number,
    eps: number,
  ) => void;
  /** In place on `heads` heads of each row; positions i32 [rows]; cos, sin f32 [position][dims / 2]; pair (i, i + dims / 2). */
  rope: (
    x: number,
    xStride: number,
    rows: number,
    heads: number,
    headDim: number,
    dims: number,
    positions: number,
    cos: number,
    sin: number,
  ) => void;
  /** out = activation(gate) * up, or activation(up) when gate is 0; kind: 0 silu, 1 gelu (erf), 2 gelu_tanh, 3 relu, 4 quick_gelu. */
  activate: (
    kind: number,
    gate: number,
    gateStride: number,
    up: number,
    upStride: number,
    out: number,
    outStride: number,
    cols: number,
    rows: number,
  ) => void;
  /** Sets every row to `vector` (bias) or adds it. */
  add_vector: (x: number, xStride: number, vector: number, cols: number, rows: number, set: number) => void;
  /** x += factor y, one row each. */
  add_scaled: (x: number, y: number, factor: number, cols: number) => void;
  /** Rows of a packed table of `groups` groups: format f32 or q8 (layout.ts). ids i32 [rows]. */
  embed_f32: EmbedKernel;
  embed_q8: EmbedKernel;
  /** x = cap tanh(x / cap), in place. */
  soft_cap: (x: number, xStride: number, cols: number, rows: number, cap: number) => void;
  argmax: (x: number, n: number) => number;
  max: (x: number, n: number) => number;
  /** log(sum(exp(x x inverseTemperature))), stable. */
  log_sum_exp: (x: number, n: number, inverseTemperature: number) => number;
  /** Writes the indices (i32) of values >= threshold, in order, at most `limit`; returns how many there are. */
  select_at_least: (x: number, n: number, threshold: number, out: number, limit: number) => number;
  /** Maximum of every {@linkcode LOGITS_BLOCK} values, f32, into `out`; returns how many there are. */
  block_max: (x: number, n: number, out: number) => number;
  /**
   * Sum of e^((x - max) inverseTemperature). `out` takes the sums of every {@linkcode LOGITS_BLOCK} values, f64, and then
   * their maxima, f32; blocks whose largest exponent is below `negligible` count as 0.
   */
  exp_sums: (x: number, n: number, inverseTemperature: number, negligible: number, out: number) => number;
  /** An index, drawn from the softmax by the uniform number u in [0, 1). scratch: as `out` of exp_sums. */
  draw_all: (
    x: number,
    n: number,
    inverseTemperature: number,
    negligible: number,
    u: number,
    scratch: number,
  ) => number;
  /** Sum of e^((x[id] - top) inverseTemperature) over ids i32 [count]. */
  exp_sum: (x: number, ids: number, count: number, inverseTemperature: number, top: number) => number;
  /** One of ids i32 [count >= 1] by the uniform number u in [0, 1); those of a weight below `least` are never drawn. */
  draw: (
    x: number,
    ids: number,
    count: number,
    inverseTemperature: number,
    top: number,
    least: number,
    u: number,
  ) => number;
  /**
   * Moves the fewest likeliest ids (ties: lower id first) whose weights e^((x[id] - top) inverseTemperature) add up to
   * `mass` to the front of ids i32 [count]; returns how many, at least 1 of 1, all when they hold less. With
   * inverseTemperature 0 every weight is 1: the `mass` largest.
   */
  keep_likeliest: (
    x: number,
    ids: number,
    count: number,
    inverseTemperature: number,
    top: number,
    mass: number,
  ) => number;
}

/** Exports of the attention module of a KV format; kv_layout.ts says how the pools are laid out. */
export interface AttentionKernels {
  /**
   * Stores k and v rows. slots i32 [rows]: KV block x 16 + offset. Pools of one layer. scratch: headDim floats, rounded up
   * to 16.
   */
  kv_write: (
    k: number,
    kStride: number,
    v: number,
    vStride: number,
    rows: number,
    kvHeads: number,
    headDim: number,
    slots: number,
    kPool: number,
    vPool: number,
    scratch: number,
  ) => void;
  /**
   * A tile: rows row..row+rows-1, all of one sequence, for KV heads kvHeadBegin..kvHeadEnd-1, each with its `groupSize` query
   * heads (heads = kvHeads x groupSize, query head = kvHead x groupSize + g). contexts i32 [rows]: visible tokens of a row,
   * any number up to what is stored; tables i32 [rows]: address of the row's KV block table (i32 ids), the same for all
   * rows of a tile; window 0 = all, else only the last `window` of the visible tokens; softCap 0 = none, else scores (q·k x scale) become
   * softCap tanh(score / softCap).
   *
   * `parts` 0: the whole context, into `out`. Else the partial softmaxes of PART_TOKENS tokens number partBegin..partEnd-1,
   * as records of partFloats floats at `parts`, `[row][head][maxParts]`, which `attention_merge` turns into `out`: the same
   * bits. scratch: attentionScratchBytes, private to the thread.
   */
  attention: (
    q: number,
    qStride: number,
    out: number,
    outStride: number,
    row: number,
    rows: number,
    kvHeadBegin: number,
    kvHeadEnd: number,
    contexts: number,
    tables: number,
    kPool: number,
    vPool: number,
    kvHeads: number,
    groupSize: number,
    headDim: number,
    scale: number,
    window: number,
    softCap: number,
    scratch: number,
    partBegin: number,
    partEnd: number,
    parts: number,
    maxParts: number,
  ) => void;
  /** Items itemBegin..itemEnd-1, item = row x heads + head: joins all parts of its context in order. */
  attention_merge: (
    parts: number,
    maxParts: number,
    out: number,
    outStride: number,
    itemBegin: number,
    itemEnd: number,
    contexts: number,
    heads: number,
    headDim: number,
    window: number,
    scratch: number,
  ) => void;
}

/** Logits that share a maximum and a sum of exponentials while sampling. */
export const LOGITS_BLOCK = 64;
/** Bytes of the scratch that `exp_sums`, `draw_all` and `block_max` need behind one another, for a row of `n` logits. */
export const logitsScratchBytes = (n: number): number => 12 * Math.ceil(n / LOGITS_BLOCK);

/** Batch sizes of the tiled kernels, largest first. */
export const TILE_SIZES = [8, 4, 2, 1] as const;
export type TileSize = typeof TILE_SIZES[number];

/** KV block size in tokens (also the K pool's inner dimension). */
export const KV_BLOCK_TOKENS = 16;
/** Bytes of the constant table that `writeConstants()` fills and kernels take as `consts`. */
export const CONSTS_BYTES = 256;
