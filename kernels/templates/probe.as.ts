// How the machine reads the second operand of the relaxed dot products: unsigned or signed bytes (load.ts, probeEncoding).

export function probe_i16(w: usize, x: usize, out: usize): void {
  v128.store(out, i16x8.relaxed_dot_i8x16_i7x16_s(v128.load(w), v128.load(x)));
}

export function probe_i32(w: usize, x: usize, out: usize): void {
  v128.store(out, i32x4.relaxed_dot_i8x16_i7x16_add_s(v128.load(w), v128.load(x), i32x4.splat(0)));
}
