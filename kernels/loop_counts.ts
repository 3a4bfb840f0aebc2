/**
 * What the loops of a compiled module hold, counted in its bytes: the instructions that a kernel must issue, whatever
 * template wrote it. Pure.
 */

/**
 * Kinds of operations that cost differently. `dot16`: pairs of bytes to 16 bits; `wide`: pairs of 16 bits to 32; `dot32`:
 * four bytes added to 32 bits; `vector`: any other on a vector; `scalar`: the rest, without locals and constants.
 */
export type OperationKind =
  | "load"
  | "store"
  | "dot16"
  | "wide"
  | "dot32"
  | "madd"
  | "shuffle"
  | "vector"
  | "scalar";
export type Operations = Readonly<Record<OperationKind, number>>;

/** A loop: its own operations once through, without those of the loops in it. The root is the function. */
export interface Loop {
  readonly operations: Operations;
  readonly loops: readonly Loop[];
}

interface OpenLoop extends Loop {
  readonly operations: Record<OperationKind, number>;
  readonly loops: OpenLoop[];
}

/** No operation of any kind. */
export const NO_OPERATIONS: Operations = {
  load: 0,
  store: 0,
  dot16: 0,
  wide: 0,
  dot32: 0,
  madd: 0,
  shuffle: 0,
  vector: 0,
  scalar: 0,
};

const openLoop = (): OpenLoop => ({ operations: { ...NO_OPERATIONS }, loops: [] });

/** Vector instructions (prefix 0xfd) that are not plain `vector`: numbers of the WebAssembly specification. */
const VECTOR_KINDS: Readonly<Record<number, OperationKind>> = {
  11: "store",
  13: "shuffle",
  14: "shuffle",
  186: "wide",
  256: "shuffle",
  261: "madd",
  262: "madd",
  274: "dot16",
  275: "dot32",
};
const isVectorLoad = (op: number) => op <= 10 || op === 92 || op === 93 || (op >= 84 && op <= 87);
const isLaneMemory = (op: number) => op >= 84 && op <= 91;

class Reader {
  at = 0;
  constructor(readonly bytes: Uint8Array) {}
  byte(): number {
    return this.bytes[this.at++];
  }
  /** LEB128; of signed numbers only the length matters here. */
  number(): number {
    let value = 0;
    for (let shift = 0;; shift += 7) {
      const byte = this.byte();
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
  }
  name(): string {
    const length = this.number();
    return new TextDecoder().decode(this.bytes.subarray(this.at, this.at += length));
  }
  skip(bytes: number): void {
    this.at += bytes;
  }
  list<T>(one: () => T): T[] {
    return Array.from({ length: this.number() }, one);
  }
}

/** Kind of the next instruction, its operands read; null when it costs nothing. */
function instruction(r: Reader, op: number): OperationKind | null {
  if (op === 0xfd) return vectorInstruction(r, r.number());
  if (op >= 0x28 && op <= 0x3e) { // loads and stores of scalars
    r.number();
    r.number();
    return op <= 0x35 ? "load" : "store";
  }
  if (op >= 0x45 && op <= 0xc4) return "scalar";
  switch (op) {
    case 0x0c: // br: mostly the backward jump that V8 inverts away
    case 0x20: // locals and globals
    case 0x21:
    case 0x22:
    case 0x23:
    case 0x24:
    case 0x41: // i32.const
    case 0x42:
      r.number();
      return null;
    case 0x0d: // br_if
    case 0x10: // call
    case 0x3f: // memory.size
      r.number();
      return "scalar";
    case 0x43:
      r.skip(4);
      return null;
    case 0x44:
      r.skip(8);
      return null;
    case 0xfc:
      if (r.number() > 7) break; // saturating conversions have no operands; bulk memory is not used
      return "scalar";
    case 0x1b: // select
      return "scalar";
    case 0x00:
    case 0x01:
    case 0x0f:
    case 0x1a:
      return null;
  }
  throw new RangeError(`Cannot count instruction 0x${op.toString(16)} at byte ${r.at}: not known`);
}

function vectorInstruction(r: Reader, op: number): OperationKind | null {
  if (op === 12) { // v128.const
    r.skip(16);
    return null;
  }
  if (op <= 11 || op === 92 || op === 93 || isLaneMemory(op)) {
    r.number();
    r.number();
  }
  if (op === 13) r.skip(16);
  if (isLaneMemory(op) || (op >= 21 && op <= 34)) r.skip(1);
  if (op >= 88 && op <= 91) return "store";
  return isVectorLoad(op) ? "load" : VECTOR_KINDS[op] ?? "vector";
}

const END = 0x0b, ELSE = 0x05, BLOCK = 0x02, LOOP = 0x03, IF = 0x04;

function functionLoops(r: Reader): Loop {
  const end = r.number() + r.at;
  r.list(() => [r.number(), r.byte()]); // locals
  const root = openLoop();
  const open: OpenLoop[] = [root];
  while (r.at < end) {
    const op = r.byte();
    const inner = open.at(-1)!;
    if (op === BLOCK || op === IF) {
      r.number();
      if (op === IF) inner.operations.scalar++;
      open.push(inner);
    } else if (op === LOOP) {
      r.number();
      const loop = openLoop();
      inner.loops.push(loop);
      open.push(loop);
    } else if (op === END) open.pop();
    else if (op !== ELSE) {
      const kind = instruction(r, op);
      if (kind !== null) inner.operations[kind]++;
    }
  }
  return root;
}

/**
 * Loops of every exported function of a module, by name.
 * @throws {RangeError} on an instruction that no kernel holds today
 */
export function countLoops(module: Uint8Array): Map<string, Loop> {
  const r = new Reader(module);
  r.skip(8);
  let exports: { name: string; kind: number; index: number }[] = [];
  let bodies: Loop[] = [];
  while (r.at < module.length) {
    const section = r.byte();
    const end = r.number() + r.at;
    if (section === 7) exports = r.list(() => ({ name: r.name(), kind: r.byte(), index: r.number() }));
    if (section === 10) bodies = r.list(() => functionLoops(r));
    r.at = end;
  }
  // Modules import the memory alone, so the first function is the first body.
  return new Map(exports.filter(({ kind }) => kind === 0).map(({ name, index }) => [name, bodies[index]]));
}
