/**
 * Dequantisation of GGUF tensor types, block by block, in the bit layouts of ggml (ggml/src/ggml-common.h,
 * dequantize_row_* in ggml/src/ggml-quants.c). `out.length` is a multiple of the block's elements.
 */
import { float16FromBits, widenBfloat16, widenFloat16, widenFloat64 } from "./widen.ts";

type Blocks = Uint8Array<ArrayBuffer>;
type Dequantize = (blocks: Blocks, out: Float32Array) => void;

/** Floats of one block: `b` is the block's first byte, `o` the first output. */
type BlockKernel = (bytes: Uint8Array, b: number, out: Float32Array, o: number) => void;

const half = (bytes: Uint8Array, at: number): number => float16FromBits(bytes[at] | bytes[at + 1] << 8);
const signed = (byte: number): number => byte << 24 >> 24;
/** Products are rounded to float32 as in the reference, so that results are the same bits. */
const f = Math.fround;

function perBlock(blockBytes: number, blockElements: number, kernel: BlockKernel): Dequantize {
  return (blocks, out) => {
    for (let b = 0, o = 0; o < out.length; b += blockBytes, o += blockElements) kernel(blocks, b, out, o);
  };
}

const q4_0: BlockKernel = (bytes, b, out, o) => {
  const d = half(bytes, b);
  for (let i = 0; i < 16; i++) {
    const byte = bytes[b + 2 + i];
    out[o + i] = d * ((byte & 15) - 8);
    out[o + i + 16] = d * ((byte >> 4) - 8);
  }
};

const q4_1: BlockKernel = (bytes, b, out, o) => {
  const d = half(bytes, b), min = half(bytes, b + 2);
  for (let i = 0; i < 16; i++) {
    const byte = bytes[b + 4 + i];
    out[o + i] = f(d * (byte & 15)) + min;
    out[o + i + 16] = f(d * (byte >> 4)) + min;
  }
};

/** Bit i of the 32 fifth bits that start at `at`. */
const fifthBit = (bytes: Uint8Array, at: number, i: number): number =>
  (bytes[at + (i >> 3)] >> (i & 7) & 1) << 4;

const q5_0: BlockKernel = (bytes, b, out, o) => {
  const d = half(bytes, b);
  for (let i = 0; i < 16; i++) {
    const byte = bytes[b + 6 + i];
    out[o + i] = d * (((byte & 15) | fifthBit(bytes, b + 2, i)) - 16);
    out[o + i + 16] = d * (((byte >> 4) | fifthBit(bytes, b + 2, i + 16)) - 16);
  }
};

const q5_1: BlockKernel = (bytes, b, out, o) => {
  const d = half(bytes, b), min = half(bytes, b + 2);
  for (let i = 0; i < 16; i++) {
    const byte = bytes[b + 8 + i];
    out[o + i] = f(d * ((byte & 15) | fifthBit(bytes, b + 4, i))) + min;
    out[o + i + 16] = f(d * ((byte >> 4) | fifthBit(bytes, b + 4, i + 16))) + min;
  }
};

const q8_0: BlockKernel = (bytes, b, out, o) => {
  const d = half(bytes, b);
  for (let i = 0; i < 32; i++) out[o + i] = d * signed(bytes[b + 2 + i]);
};

/** 16 groups of 16, 4-bit scale and minimum each, 2-bit codes. */
const q2_k: BlockKernel = (bytes, b, out, o) => {
  const d = half(bytes, b + 80), dmin = half(bytes, b + 82);
  for (let i = 0; i < 256; i++) {
    const scale = bytes[b + (i >> 4)];
    // 128 elements share 32 bytes: 4 runs of 32, two bits each.
    const code = bytes[b + 16 + (i >> 7) * 32 + (i & 31)] >> ((i >> 5 & 3) * 2) & 3;
    out[o + i] = f(f(d * (scale & 15)) * code) - f(dmin * (scale >> 4));
  }
};

/** 16 groups of 16, 6-bit scales, 2-bit codes and a mask of third bits. */
const q3_k: BlockKernel = (bytes, b, out, o) => {
  const d = half(bytes, b + 108);
  for (let i = 0; i < 256; i++) {
    const low = bytes[b + 32 + (i >> 7) * 32 + (i & 31)] >> ((i >> 5 & 3) * 2) & 3;
    const high = bytes[b + (i & 31)] >> (i >> 5) & 1;
    out[o + i] = f(d * q3Scale(bytes, b + 96, i >> 4)) * (low - (high ? 0 : 4));
  }
};

/** Scale `group` of 16: 4 low bits in bytes 0..7 (two halves), 2 high bits in bytes 8..11. */
function q3Scale(bytes: Uint8Array, at: number, group: number): number {
  const low = bytes[at + (group & 7)] >> (group >> 3) * 4 & 15;
  const high = bytes[at + 8 + (group & 3)] >> (group >> 2) * 2 & 3;
  return (low | high << 4) - 32;
}

/** 6-bit scale and minimum of group `j` of 8, packed in 12 bytes (get_scale_min_k4). */
function scaleMin(bytes: Uint8Array, at: number, j: number): [scale: number, min: number] {
  if (j < 4) return [bytes[at + j] & 63, bytes[at + j + 4] & 63];
  return [
    (bytes[at + j + 4] & 15) | (bytes[at + j - 4] >> 6) << 4,
    (bytes[at + j + 4] >> 4) | (bytes[at + j] >> 6) << 4,
  ];
}

/** 8 groups of 32; `code` gives the unsigned code of an element. */
function superBlock(
  bytes: Uint8Array,
  b: number,
  out: Float32Array,
  o: number,
  code: (i: number) => number,
): void {
  const d = half(bytes, b), dmin = half(bytes, b + 2);
  for (let group = 0; group < 8; group++) {
    const [scale, min] = scaleMin(bytes, b + 4, group);
    const groupScale = f(d * scale), groupMin = f(dmin * min);
    for (let i = group * 32; i < group * 32 + 32; i++) out[o + i] = f(groupScale * code(i)) - groupMin;
  }
}

/** Low and high nibbles of 32 bytes hold two groups of 32, starting at `at`. */
const nibble = (bytes: Uint8Array, at: number, i: number): number =>
  bytes[at + (i >> 6) * 32 + (i & 31)] >> (i >> 5 & 1) * 4 & 15;

const q4_k: BlockKernel = (bytes, b, out, o) => superBlock(bytes, b, out, o, (i) => nibble(bytes, b + 16, i));

const q5_k: BlockKernel = (bytes, b, out, o) =>
  superBlock(
    bytes,
    b,
    out,
    o,
    (i) => nibble(bytes, b + 48, i) | (bytes[b + 16 + (i & 31)] >> (i >> 5) & 1) << 4,
  );

/** 16 groups of 16, signed 8-bit scales; 4 low bits and 2 high bits of each code. */
const q6_k: BlockKernel = (bytes, b, out, o) => {
  const d = half(bytes, b + 208);
  for (let i = 0; i < 256; i++) {
    const part = i >> 7, run = i >> 5 & 3, column = i & 31;
    const low = bytes[b + part * 64 + (run & 1) * 32 + column] >> (run >> 1) * 4 & 15;
    const high = bytes[b + 128 + part * 32 + column] >> run * 2 & 3;
    const scale = signed(bytes[b + 192 + (i >> 4)]);
    out[o + i] = f(d * scale) * ((low | high << 4) - 32);
  }
};

/** kvalues_iq4nl of ggml: a non-linear 4-bit grid. */
const IQ4_GRID = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

const iq4_nl: BlockKernel = (bytes, b, out, o) => {
  const d = half(bytes, b);
  for (let i = 0; i < 16; i++) {
    const byte = bytes[b + 2 + i];
    out[o + i] = d * IQ4_GRID[byte & 15];
    out[o + i + 16] = d * IQ4_GRID[byte >> 4];
  }
};

/** 8 groups of 32 on the same grid, 6-bit scales: 2 bytes of high bits, 4 bytes of low bits. */
const iq4_xs: BlockKernel = (bytes, b, out, o) => {
  const d = half(bytes, b);
  const highs = bytes[b + 2] | bytes[b + 3] << 8;
  for (let group = 0; group < 8; group++) {
    const low = bytes[b + 4 + (group >> 1)] >> (group & 1) * 4 & 15;
    const scale = f(d * ((low | (highs >> group * 2 & 3) << 4) - 32));
    for (let i = 0; i < 16; i++) {
      const byte = bytes[b + 8 + group * 16 + i];
      out[o + group * 32 + i] = scale * IQ4_GRID[byte & 15];
      out[o + group * 32 + i + 16] = scale * IQ4_GRID[byte >> 4];
    }
  }
};

/** Digit `n` from the left of the five ternary digits in a byte, less 1: the byte is ceil(256 / 243 of their number). */
const trit = (byte: number, n: number): number => ((byte * 3 ** n & 255) * 3 >> 8) - 1;

/** Runs of bytes whose first digits come first, then their second ones, ...: where a run begins, bytes, digits. */
const TRIT_RUNS = [[0, 32, 5], [32, 16, 5], [48, 4, 4]] as const;

const tq1_0: BlockKernel = (bytes, b, out, o) => {
  const d = half(bytes, b + 52);
  for (const [from, length, digits] of TRIT_RUNS) {
    for (let n = 0; n < digits; n++) {
      for (let i = 0; i < length; i++) out[o++] = d * trit(bytes[b + from + i], n);
    }
  }
};

/** As in Q2_K, 128 elements share 32 bytes; codes 0 to 2 are -1 to 1. */
const tq2_0: BlockKernel = (bytes, b, out, o) => {
  const d = half(bytes, b + 64);
  for (let i = 0; i < 256; i++) {
    out[o + i] = d * ((bytes[b + (i >> 7) * 32 + (i & 31)] >> ((i >> 5 & 3) * 2) & 3) - 1);
  }
};

/** The types Oatmill reads, by name. */
export const dequantizers: ReadonlyMap<string, Dequantize> = new Map<string, Dequantize>([
  ["F32", (bytes, out) => out.set(new Float32Array(bytes.buffer, bytes.byteOffset, out.length))],
  ["F16", widenFloat16],
  ["BF16", widenBfloat16],
  ["F64", widenFloat64],
  ["Q4_0", perBlock(18, 32, q4_0)],
  ["Q4_1", perBlock(20, 32, q4_1)],
  ["Q5_0", perBlock(22, 32, q5_0)],
  ["Q5_1", perBlock(24, 32, q5_1)],
  ["Q8_0", perBlock(34, 32, q8_0)],
  ["Q2_K", perBlock(84, 256, q2_k)],
  ["Q3_K", perBlock(110, 256, q3_k)],
  ["Q4_K", perBlock(144, 256, q4_k)],
  ["Q5_K", perBlock(176, 256, q5_k)],
  ["Q6_K", perBlock(210, 256, q6_k)],
  ["IQ4_NL", perBlock(18, 32, iq4_nl)],
  ["IQ4_XS", perBlock(136, 256, iq4_xs)],
  ["TQ1_0", perBlock(54, 256, tq1_0)],
  ["TQ2_0", perBlock(66, 256, tq2_0)],
]);
