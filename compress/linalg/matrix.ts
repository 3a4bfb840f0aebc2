/** Row-major f32 matrices, and the element-wise operations that are too small for ONNX Runtime. */

export interface Matrix {
  readonly rows: number;
  readonly cols: number;
  /** `[rows, cols]` */
  readonly data: Float32Array<ArrayBuffer>;
}

/** @param data defaults to zeros */
export function matrix(rows: number, cols: number, data?: Float32Array<ArrayBuffer>): Matrix {
  if (data && data.length !== rows * cols) {
    throw new RangeError(`Cannot shape ${data.length} values as [${rows}, ${cols}]`);
  }
  return { rows, cols, data: data ?? new Float32Array(rows * cols) };
}

/** A copy of rows `top` to `bottom`, columns `left` to `right`. */
export function rectangle(M: Matrix, top: number, bottom: number, left: number, right: number): Matrix {
  const out = matrix(bottom - top, right - left);
  for (let i = top; i < bottom; i++) {
    out.data.set(M.data.subarray(i * M.cols + left, i * M.cols + right), (i - top) * out.cols);
  }
  return out;
}

/** Puts B into A, its first entry at row `top`, column `left`. */
export function place(A: Matrix, B: Matrix, top: number, left: number): void {
  for (let i = 0; i < B.rows; i++) {
    A.data.set(B.data.subarray(i * B.cols, (i + 1) * B.cols), (top + i) * A.cols + left);
  }
}

/** Subtracts B from the entries of A that begin at row `top`, column `left`. */
export function subtractAt(A: Matrix, B: Matrix, top: number, left: number): void {
  for (let i = 0, from = 0; i < B.rows; i++) {
    const at = (top + i) * A.cols + left;
    for (let j = 0; j < B.cols; j++, from++) A.data[at + j] -= B.data[from];
  }
}

/** A - B */
export function subtract(A: Matrix, B: Matrix): Matrix {
  const out = new Float32Array(A.data.length), a = A.data, b = B.data;
  for (let i = 0; i < out.length; i++) out[i] = a[i] - b[i];
  return { rows: A.rows, cols: A.cols, data: out };
}

/** A times a number. */
export function scale(A: Matrix, by: number): Matrix {
  const out = new Float32Array(A.data.length), a = A.data;
  for (let i = 0; i < out.length; i++) out[i] = a[i] * by;
  return { rows: A.rows, cols: A.cols, data: out };
}

/** A diag(d) */
export function scaleColumns(A: Matrix, d: ArrayLike<number>): Matrix {
  const { rows, cols, data } = A, out = new Float32Array(data.length);
  for (let i = 0, at = 0; i < rows; i++) {
    for (let j = 0; j < cols; j++, at++) out[at] = data[at] * d[j];
  }
  return { rows, cols, data: out };
}

export function transpose(A: Matrix): Matrix {
  const { rows, cols, data } = A, out = new Float32Array(data.length);
  for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) out[j * rows + i] = data[i * cols + j];
  return { rows: cols, cols: rows, data: out };
}

/** 1 / d; 0 where d is 0, so that dead columns vanish instead of dividing. */
export function reciprocals(d: Float32Array): Float32Array {
  return d.map((x) => x > 0 ? 1 / x : 0);
}

/** Sum of squares, in f64. */
export function energy({ data }: Matrix): number {
  let sum = 0;
  for (let i = 0; i < data.length; i++) sum += data[i] * data[i];
  return sum;
}

/** Entries that are not 0. */
export function nonZeros({ data }: Matrix): number {
  let count = 0;
  for (let i = 0; i < data.length; i++) count += +(data[i] !== 0);
  return count;
}

/** 1 where a value is not 0; a plain loop, since `Uint8Array.from` takes 60 ns a value. */
export function nonZeroMask(values: Float32Array): Uint8Array {
  const mask = new Uint8Array(values.length);
  for (let i = 0; i < values.length; i++) mask[i] = +(values[i] !== 0);
  return mask;
}

/**
 * The power of two that brings the largest magnitude to [1, 2): products of sums of squares then stay within f32 whatever
 * unit the values had, and no value loses a bit. 1 when all are 0.
 */
export function unitPower(values: Float32Array): number {
  let most = 0;
  for (let i = 0; i < values.length; i++) most = Math.max(most, Math.abs(values[i]));
  return most > 0 ? 2 ** -Math.floor(Math.log2(most)) : 1;
}

/** Values whose largest magnitude lies in [1, 2), see {@linkcode unitPower}. */
export function unitSized(values: Float32Array): Float32Array<ArrayBuffer> {
  const power = unitPower(values);
  return Float32Array.from(values, (x) => x * power);
}
