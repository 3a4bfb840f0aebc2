/**
 * AssemblyScript source of the loops that find what the machine can do at most (bench/kernels.ts): arithmetic on
 * registers alone, checked loads from the first-level cache, reads of memory. `kernels/peak.ts` lists them.
 *
 * What a loop holds is counted in its bytes (loop_counts.ts), so nothing here is told twice. Every operation takes its
 * predecessor's result: V8 can neither drop nor share it. 12 chains hide a latency of 4 cycles at 3 a cycle, and with
 * two constants they fill the registers; eight turns a step pay for the accumulators that V8 spills at loop headers.
 */

import { type PeakLoop, READ_STREAMS } from "../peak.ts";

const CHAINS = 12;
const TURNS = 8;
const LINE = 64;

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
const lines = (parts: string[]): string => parts.join("\n");

/** One turn of each arithmetic loop over the chains d0..d11. */
const TURN: Readonly<Record<PeakLoop, (turn: number) => string[]>> = {
  vector: () => range(CHAINS).map((i) => `d${i} = i32x4.add(d${i}, x);`),
  shuffle: () => range(CHAINS).map((i) => `d${i} = i8x16.relaxed_swizzle(d${i}, x);`),
  dot16: () => range(CHAINS).map((i) => `d${i} = i16x8.relaxed_dot_i8x16_i7x16_s(d${i}, x);`),
  wide: () => range(CHAINS).map((i) => `d${i} = i32x4.dot_i16x8_s(d${i}, x);`),
  // The kernels' inner sequences, by accumulation: half of the chains are codes, half sums.
  i16_q8: () => sums((d, h) => `${d} = i16x8.relaxed_dot_i8x16_i7x16_s(${d}, x); ${h} = i32x4.add(${h}, i32x4.dot_i16x8_s(${d}, ones));`),
  i16_q4: () => sums((d, h) => `${d} = i16x8.relaxed_dot_i8x16_i7x16_s(${d}, x); ${h} = i16x8.add(${h}, ${d});`),
  i32: () => range(CHAINS).map((i) => `d${i} = i32x4.relaxed_dot_i8x16_i7x16_add_s(ones, x, d${i});`),
  f32: () => range(CHAINS).map((i) => `d${i} = f32x4.relaxed_madd(ones, x, d${i});`),
  load: (turn) => range(CHAINS).map((i) => `d${i} = v128.xor(d${i}, v128.load(p, ${16 * (CHAINS * turn + i)}));`),
  // Half memory, half arithmetic: no unit is full, so the issue of instructions is.
  mixed: (turn) =>
    sums((d, h, i) =>
      `${d} = i16x8.relaxed_dot_i8x16_i7x16_s(${d}, v128.load(p, ${16 * (CHAINS * turn + i)})); ${h} = v128.xor(${h}, ${d});`
    ),
};

function sums(line: (d: string, h: string, i: number) => string): string[] {
  return range(CHAINS / 2).map((i) => line(`d${i}`, `d${i + CHAINS / 2}`, i));
}

/** `advance` is 0 at run time: a pointer that V8 cannot know keeps the loads where they are. */
const arithmetic = ([name, turn]: [string, (turn: number) => string[]]): string => `
export function peak_${name}(steps: i32, consts: usize, data: usize, advance: usize, out: usize): void {
  const x = v128.load(consts), ones = v128.load(consts, 48);
  let p = data, ${range(CHAINS).map((i) => `d${i} = v128.load(consts, ${16 * (i % 4)})`).join(", ")};
  for (; steps > 0; steps--) {
${lines(range(TURNS).flatMap(turn).map((line) => `    ${line}`))}
    p += advance;
  }
${lines(range(CHAINS).map((i) => `  v128.store(out, v128.xor(v128.load(out), d${i}));`))}
}
`;

/** Reads every line of \`bytes\` bytes once, as so many streams side by side; \`loads\` of a line's four vectors. */
const read = (streams: number, loads: number): string => `
export function read_${streams}_${loads}(data: usize, bytes: usize, out: usize): void {
  const share = bytes / ${streams}, end = data + share;
  let ${range(4).map((i) => `d${i} = i32x4.splat(0)`).join(", ")};
  for (let p = data; p < end; p += ${4 * LINE}) {
${lines(range(streams).map((s) => s ? `    const q${s} = p + ${s} * share;` : "    const q0 = p;"))}
${
  lines(range(4).flatMap((line) =>
    range(streams).flatMap((s) =>
      range(loads).map((v) => `    d${(line + v) % 4} = v128.xor(d${(line + v) % 4}, v128.load(q${s}, ${LINE * line + 16 * v}));`)
    )
  ))
}
  }
  v128.store(out, v128.xor(v128.xor(d0, d1), v128.xor(d2, d3)));
}
`;

export function peakSource(): string {
  return Object.entries(TURN).map(arithmetic).join("") +
    READ_STREAMS.map(([streams, loads]) => read(streams, loads)).join("");
}
