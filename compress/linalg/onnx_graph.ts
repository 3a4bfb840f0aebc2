/**
 * Writes small ONNX models: the few protobuf fields ONNX Runtime needs, and a builder whose methods return value
 * names, so that a graph reads like the maths it computes.
 */

/** ONNX opset of every graph written here. */
const OPSET = 17;
const IR_VERSION = 8;
/** Version of an operator set that is not ONNX's own: ONNX Runtime has the first one only. */
const DOMAIN_VERSION = 1;
/** TensorProto.DataLocation: the values lie in a file beside the model. */
const EXTERNAL = 1;

const ELEMENT_TYPES = { f32: 1, u8: 2, i8: 3, i32: 6, i64: 7 } as const;
export type ElementType = keyof typeof ELEMENT_TYPES;
/** AttributeProto.type by the kind of value. */
const ATTRIBUTE_TYPES = { float: 1, int: 2, string: 3, ints: 7 } as const;

/** `{ int: 1 }` and so on: ONNX distinguishes 1 from 1.0. */
export type Attribute =
  | { readonly float: number }
  | { readonly int: number }
  | { readonly string: string }
  | { readonly ints: readonly number[] };

/** Values of a constant that lie in a file beside the model. */
export interface ExternalValues {
  /** Default: one that no other value has. */
  readonly name?: string;
  readonly type: keyof typeof ELEMENT_TYPES;
  readonly shape: readonly number[];
  /** Relative to the model's file. */
  readonly file: string;
  readonly offset: number;
  readonly bytes: number;
}

/** A dimension is a number or the name of a free one. */
export type Dimension = number | string;

/** One step of a graph, as it is encoded. */
export interface OnnxNode {
  readonly op: string;
  /** Values read; an empty name means "not given". */
  readonly inputs: readonly string[];
  readonly attributes: Readonly<Record<string, Attribute>>;
  readonly outputs: readonly string[];
  /** Empty: ONNX's own operators. */
  readonly domain: string;
}

/** Protobuf wire format: only varints, 32-bit floats and length-delimited fields occur. */
class ProtoWriter {
  #bytes: number[] = [];

  #varint(value: number): void {
    if (value < 0) { // two's complement, 10 bytes
      for (let v = BigInt.asUintN(64, BigInt(value)), i = 0; i < 10; i++, v >>= 7n) {
        this.#bytes.push(Number(v & 127n) | (i < 9 ? 128 : 0));
      }
      return;
    }
    for (; value >= 128; value = Math.floor(value / 128)) this.#bytes.push((value % 128) | 128);
    this.#bytes.push(value);
  }

  int(field: number, value: number): this {
    this.#varint(field * 8);
    this.#varint(value);
    return this;
  }

  float(field: number, value: number): this {
    this.#varint(field * 8 + 5);
    this.#bytes.push(...new Uint8Array(Float32Array.of(value).buffer));
    return this;
  }

  bytes(field: number, value: ArrayLike<number>): this {
    this.#varint(field * 8 + 2);
    this.#varint(value.length);
    for (let i = 0; i < value.length; i++) this.#bytes.push(value[i]);
    return this;
  }

  string(field: number, value: string): this {
    return this.bytes(field, new TextEncoder().encode(value));
  }

  message(field: number, write: (w: ProtoWriter) => void): this {
    const inner = new ProtoWriter();
    write(inner);
    return this.bytes(field, inner.#bytes);
  }

  finish(): Uint8Array<ArrayBuffer> {
    return Uint8Array.from(this.#bytes);
  }
}

export class OnnxGraph {
  #nodes: OnnxNode[] = [];
  readonly #initializers = new Map<string, (w: ProtoWriter) => void>();
  readonly #inputs = new Map<string, { readonly shape: readonly Dimension[]; readonly type: ElementType }>();
  #outputs: string[] = [];
  readonly #integers = new Map<string, readonly number[]>();
  readonly #scalars = new Map<string, number>();
  readonly #domains = new Set<string>();
  #values = 0;

  input(name: string, shape: readonly Dimension[], type: ElementType = "f32"): string {
    this.#inputs.set(name, { shape, type });
    return name;
  }

  /** Steps in the order of their computation. */
  get steps(): readonly OnnxNode[] {
    return this.#nodes;
  }

  get inputs(): ReadonlyMap<string, { readonly shape: readonly Dimension[]; readonly type: ElementType }> {
    return this.#inputs;
  }

  get outputs(): readonly string[] {
    return this.#outputs;
  }

  /** Constant vectors of integers and constant scalars, by name. */
  get constants(): {
    readonly integers: ReadonlyMap<string, readonly number[]>;
    readonly scalars: ReadonlyMap<string, number>;
  } {
    return { integers: this.#integers, scalars: this.#scalars };
  }

  /** Makes an output a value like others. */
  withdraw(output: string): void {
    this.#outputs = this.#outputs.filter((name) => name !== output);
  }

  /** Reads `value` from a new input from now on, instead of computing it. */
  replace(value: string, input: string, shape: readonly Dimension[]): void {
    this.input(input, shape);
    const read = (name: string) => name === value ? input : name;
    this.#nodes = this.#nodes.map((node) => ({ ...node, inputs: node.inputs.map(read) }));
  }

  /** Drops the steps and constants that no output needs: ONNX Runtime would compute them. */
  prune(): this {
    const needed = new Set(this.#outputs);
    const kept = this.#nodes.reverse().filter(({ inputs, outputs }) => {
      if (!outputs.some((name) => needed.has(name))) return false;
      for (const name of inputs) needed.add(name);
      return true;
    });
    this.#nodes = kept.reverse();
    for (const name of [...this.#initializers.keys()]) if (!needed.has(name)) this.#initializers.delete(name);
    return this;
  }

  /** Whether there is an input of that name. */
  has(name: string): boolean {
    return this.#inputs.has(name);
  }

  /** Names `value` as an output of the graph. */
  output(name: string, value: string): void {
    this.node("Identity", [value], {}, name);
    this.#outputs.push(name);
  }

  /** A constant vector of integers (shapes, axes). */
  integers(values: readonly number[]): string {
    const name = `c${this.#values++}`;
    this.#integers.set(name, [...values]);
    const data = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
    this.#initializers.set(
      name,
      (w) => w.int(1, values.length).int(2, ELEMENT_TYPES.i64).string(8, name).bytes(9, data),
    );
    return name;
  }

  scalar(value: number): string {
    const name = `c${this.#values++}`;
    this.#scalars.set(name, value);
    const data = new Uint8Array(Float32Array.of(value).buffer);
    this.#initializers.set(name, (w) => w.int(2, ELEMENT_TYPES.f32).string(8, name).bytes(9, data));
    return name;
  }

  /** A constant too large for the model's own file. */
  external({ type, shape, file, offset, bytes, name = `c${this.#values++}` }: ExternalValues): string {
    this.#initializers.set(name, (w) => {
      for (const d of shape) w.int(1, d);
      w.int(2, ELEMENT_TYPES[type]).string(8, name);
      for (const [key, value] of Object.entries({ location: file, offset, length: bytes })) {
        w.message(13, (entry) => entry.string(1, key).string(2, String(value)));
      }
      w.int(14, EXTERNAL);
    });
    return name;
  }

  /** Adds a node with one output and returns the output's name; an empty input name means "not given", an empty domain ONNX's own operators. */
  node(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, Attribute>> = {},
    output = `v${this.#values++}`,
    domain = "",
  ): string {
    this.#add(op, { inputs, attributes, outputs: [output], domain });
    return output;
  }

  /** The same with several outputs. */
  nodes(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, Attribute>>,
    count: number,
  ): string[] {
    const outputs = Array.from({ length: count }, () => `v${this.#values++}`);
    this.#add(op, { inputs, attributes, outputs, domain: "" });
    return outputs;
  }

  #add(op: string, node: Omit<OnnxNode, "op">): void {
    if (node.domain !== "") this.#domains.add(node.domain);
    this.#nodes.push({ op, ...node });
  }

  encode(): Uint8Array<ArrayBuffer> {
    const model = new ProtoWriter().int(1, IR_VERSION).message(8, (w) => w.string(1, "").int(2, OPSET));
    for (const domain of this.#domains) {
      model.message(8, (w) => w.string(1, domain).int(2, DOMAIN_VERSION));
    }
    return model
      .message(7, (graph) => {
        for (const node of this.#nodes) graph.message(1, (w) => writeNode(w, node));
        graph.string(2, "oatmill");
        for (const write of this.#initializers.values()) graph.message(5, write);
        for (const [name, { shape, type }] of this.#inputs) {
          graph.message(11, (w) => writeValueInfo(w, name, shape, type));
        }
        for (const name of this.#outputs) graph.message(12, (w) => writeValueInfo(w, name, null));
      })
      .finish();
  }
}

function writeValueInfo(
  w: ProtoWriter,
  name: string,
  shape: readonly Dimension[] | null,
  type: ElementType = "f32",
): void {
  w.string(1, name).message(2, (t) =>
    t.message(1, (tensor) => {
      tensor.int(1, ELEMENT_TYPES[type]);
      if (!shape) return;
      tensor.message(2, (s) => {
        for (const d of shape) {
          s.message(1, (dim) => typeof d === "number" ? dim.int(1, d) : dim.string(2, d));
        }
      });
    }));
}

function writeNode(w: ProtoWriter, { op, inputs, attributes, outputs, domain }: OnnxNode): void {
  for (const input of inputs) w.string(1, input);
  for (const output of outputs) w.string(2, output);
  w.string(4, op);
  for (const [name, value] of Object.entries(attributes)) {
    w.message(5, (a) => writeAttribute(a, name, value));
  }
  if (domain !== "") w.string(7, domain);
}

function writeAttribute(w: ProtoWriter, name: string, value: Attribute): void {
  w.string(1, name);
  if ("float" in value) w.float(2, value.float).int(20, ATTRIBUTE_TYPES.float);
  else if ("int" in value) w.int(3, value.int).int(20, ATTRIBUTE_TYPES.int);
  else if ("string" in value) w.string(4, value.string).int(20, ATTRIBUTE_TYPES.string);
  else {
    for (const i of value.ints) w.int(8, i);
    w.int(20, ATTRIBUTE_TYPES.ints);
  }
}
