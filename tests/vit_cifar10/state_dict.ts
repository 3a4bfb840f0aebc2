/**
 * The tensors of a PyTorch checkpoint that is a plain state_dict, without running what it says. A pickle is a program;
 * this reads the few of its instructions that a dict of tensors is written with, calls nothing, and stops at any other.
 * For test data only: Oatmill itself reads no pickles (models/formats/pickle.ts).
 */
// @ts-types="@types/yauzl"
import yauzl from "yauzl";
import { buffer } from "node:stream/consumers";

/** Contiguous, row-major. */
export interface StoredTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** What an instruction may leave on the stack. */
type Value =
  | string
  | number
  | boolean
  | Value[]
  | Map<Value, Value>
  | { readonly global: string }
  | { readonly storage: string; readonly count: number }
  | { readonly tensor: StoredTensor };

const DICT = "collections OrderedDict",
  TENSOR = "torch._utils _rebuild_tensor_v2",
  FLOATS = "torch FloatStorage";

/** @throws {Error} naming the instruction or the value that a plain state_dict of float32 does not have */
export async function readStateDict(path: string): Promise<Map<string, StoredTensor>> {
  const files = await readZip(path);
  const pickle = [...files.keys()].find((name) => name.endsWith("/data.pkl"));
  if (!pickle) throw new Error(`${path} has no data.pkl`);
  const folder = pickle.slice(0, -"data.pkl".length);
  const root = new Reader(files.get(pickle)!, (key) => files.get(`${folder}data/${key}`)).read();
  if (!(root instanceof Map)) throw new Error(`${path} is no dict of tensors`);
  return new Map([...root].map(([name, value]) => [String(name), tensorOf(value, String(name))]));
}

function tensorOf(value: Value, name: string): StoredTensor {
  if (typeof value === "object" && "tensor" in value) return value.tensor;
  throw new Error(`${name} is no tensor`);
}

async function readZip(path: string): Promise<Map<string, Uint8Array>> {
  const zip = await yauzl.openPromise(path, { lazyEntries: true, autoClose: false });
  const files = new Map<string, Uint8Array>();
  try {
    for await (const entry of zip.eachEntry()) {
      files.set(entry.fileName, await buffer(await zip.openReadStreamPromise(entry)));
    }
  } finally {
    zip.close();
  }
  return files;
}

/** Stack, marks and memo of Python's pickle machine, protocol 2. */
class Reader {
  #at = 0;
  #stack: Value[] = [];
  readonly #marks: Value[][] = [];
  readonly #memo = new Map<number, Value>();

  constructor(readonly bytes: Uint8Array, readonly storageBytes: (key: string) => Uint8Array | undefined) {}

  read(): Value {
    for (;;) {
      const code = this.#number(1), instruction = this.#instructions[code];
      if (code === 0x2e) return this.#pop(); // STOP
      if (!instruction) throw new Error(`Instruction 0x${code.toString(16)} has no place in a state_dict`);
      instruction();
    }
  }

  readonly #instructions: Readonly<Record<number, () => void>> = {
    0x80: () => this.#number(1), // PROTO
    0x63: () => this.#push({ global: `${this.#line()} ${this.#line()}` }), // GLOBAL
    0x71: () => this.#memo.set(this.#number(1), this.#top()), // BINPUT
    0x72: () => this.#memo.set(this.#number(4), this.#top()), // LONG_BINPUT
    0x68: () => this.#push(this.#remembered(this.#number(1))), // BINGET
    0x6a: () => this.#push(this.#remembered(this.#number(4))), // LONG_BINGET
    0x4b: () => this.#push(this.#number(1)), // BININT1
    0x4d: () => this.#push(this.#number(2)), // BININT2
    0x4a: () => this.#push(this.#number(4) | 0), // BININT
    0x58: () => this.#push(this.#text(this.#number(4))), // BINUNICODE
    0x88: () => this.#push(true), // NEWTRUE
    0x89: () => this.#push(false), // NEWFALSE
    0x29: () => this.#push([]), // EMPTY_TUPLE
    0x7d: () => this.#push(new Map()), // EMPTY_DICT
    0x28: () => { // MARK
      this.#marks.push(this.#stack);
      this.#stack = [];
    },
    0x74: () => this.#push(this.#sinceMark()), // TUPLE
    0x85: () => this.#push(this.#stack.splice(-1)), // TUPLE1
    0x86: () => this.#push(this.#stack.splice(-2)), // TUPLE2
    0x87: () => this.#push(this.#stack.splice(-3)), // TUPLE3
    0x51: () => this.#push(storageOf(this.#pop())), // BINPERSID
    0x52: () => this.#push(this.#build(this.#pop(), this.#pop())), // REDUCE
    0x73: () => this.#setItems(this.#stack.splice(-2)), // SETITEM
    0x75: () => this.#setItems(this.#sinceMark()), // SETITEMS
    0x62: () => this.#pop(), // BUILD: attributes of the dict, versions of the modules
  };

  /** Two things may be made, and both are made here: an empty dict, and a tensor of stored floats. */
  #build(args: Value, maker: Value): Value {
    const name = typeof maker === "object" && "global" in maker ? maker.global : "";
    if (name === DICT) return new Map();
    if (name !== TENSOR || !Array.isArray(args)) throw new Error(`A state_dict does not call ${name}`);
    const [storage, offset, shape, strides] = args;
    if (typeof storage !== "object" || !("storage" in storage)) throw new Error("A tensor has no storage");
    const bytes = this.storageBytes(storage.storage);
    if (bytes?.length !== 4 * storage.count) throw new Error(`Storage ${storage.storage} is incomplete`);
    const floats = new Float32Array(bytes.slice().buffer), sizes = numbers(shape);
    if (!isRowMajor(sizes, numbers(strides))) throw new Error("A tensor is not stored row by row");
    const begin = Number(offset), end = begin + sizes.reduce((a, b) => a * b, 1);
    if (end > floats.length) throw new Error("A tensor leaves its storage");
    return { tensor: { shape: sizes, data: floats.slice(begin, end) } };
  }
  #setItems(items: Value[]): void {
    const dict = this.#top();
    if (!(dict instanceof Map)) throw new Error("Only dicts have items here");
    for (let i = 0; i + 1 < items.length; i += 2) dict.set(items[i], items[i + 1]);
  }

  #number(bytes: 1 | 2 | 4): number {
    if (this.#at + bytes > this.bytes.length) throw new Error("The pickle ends early");
    let value = 0;
    for (let i = 0; i < bytes; i++) value += this.bytes[this.#at++] * 256 ** i;
    return value;
  }
  #text(length: number): string {
    return new TextDecoder().decode(this.bytes.subarray(this.#at, this.#at += length));
  }
  #line(): string {
    const end = this.bytes.indexOf(0x0a, this.#at);
    if (end < 0) throw new Error("The pickle ends early");
    const line = this.#text(end - this.#at);
    this.#at++;
    return line;
  }
  #push(value: Value): void {
    this.#stack.push(value);
  }
  #pop(): Value {
    const value = this.#stack.pop();
    if (value === undefined) throw new Error("The pickle takes more than it has");
    return value;
  }
  #top(): Value {
    const value = this.#pop();
    this.#push(value);
    return value;
  }
  #sinceMark(): Value[] {
    const items = this.#stack, below = this.#marks.pop();
    if (!below) throw new Error("The pickle has no mark here");
    this.#stack = below;
    return items;
  }
  #remembered(key: number): Value {
    const value = this.#memo.get(key);
    if (value === undefined) throw new Error(`The pickle remembers nothing under ${key}`);
    return value;
  }
}

function storageOf(id: Value): Value {
  const [kind, type, key, , count] = Array.isArray(id) ? id : [];
  const isFloats = typeof type === "object" && "global" in type && type.global === FLOATS;
  if (kind !== "storage" || !isFloats || typeof key !== "string" || typeof count !== "number") {
    throw new Error("Only storages of float32 are read");
  }
  return { storage: key, count };
}

function numbers(value: Value): number[] {
  if (Array.isArray(value) && value.every((v) => typeof v === "number")) return value;
  throw new Error("A shape is no tuple of numbers");
}

function isRowMajor(shape: number[], strides: number[]): boolean {
  let wanted = 1;
  return shape.every((_, k) => {
    const i = shape.length - 1 - k, ok = shape[i] === 1 || strides[i] === wanted;
    wanted *= shape[i];
    return ok;
  });
}
