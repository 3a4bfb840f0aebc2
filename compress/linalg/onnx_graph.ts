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
const ATTRIBUTE_TYPES = { float: 1, int: 2, ints: 7 } as const;

/** `{ int: 1 }` and so on: ONNX distinguishes 1 from 1.0. */
export type Attribute =
  | { readonly float: number }
  | { readonly int: number }
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
  readonly #nodes: ((w: ProtoWriter) => void)[] = [];
  readonly #initializers: ((w: ProtoWriter) => void)[] = [];
  readonly #inputs = new Map<string, (w: ProtoWriter) => void>();
  readonly #outputs: ((w: ProtoWriter) => void)[] = [];
  readonly #domains = new Set<string>();
  #values = 0;

  #valueInfo(name: string, shape: readonly Dimension[] | null, type: ElementType = "f32") {
    return (w: ProtoWriter) =>
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

  input(name: string, shape: readonly Dimension[], type: ElementType = "f32"): string {
    this.#inputs.set(name, this.#valueInfo(name, shape, type));
    return name;
  }

  /** Whether there is an input of that name. */
  has(name: string): boolean {
    return this.#inputs.has(name);
  }

  /** Names `value` as an output of the graph. */
  output(name: string, value: string): void {
    this.node("Identity", [value], {}, name);
    this.#outputs.push(this.#valueInfo(name, null));
  }

  /** A constant vector of integers (shapes, axes). */
  integers(values: readonly number[]): string {
    const name = `c${this.#values++}`;
    const data = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
    this.#initializers.push((w) =>
      w.int(1, values.length).int(2, ELEMENT_TYPES.i64).string(8, name).bytes(9, data)
    );
    return name;
  }

  scalar(value: number): string {
    const name = `c${this.#values++}`;
    const data = new Uint8Array(Float32Array.of(value).buffer);
    this.#initializers.push((w) => w.int(2, ELEMENT_TYPES.f32).string(8, name).bytes(9, data));
    return name;
  }

  /** A constant too large for the model's own file. */
  external({ type, shape, file, offset, bytes, name = `c${this.#values++}` }: ExternalValues): string {
    this.#initializers.push((w) => {
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

  #add(
    op: string,
    { inputs, attributes, outputs, domain }: {
      readonly inputs: readonly string[];
      readonly attributes: Readonly<Record<string, Attribute>>;
      readonly outputs: readonly string[];
      readonly domain: string;
    },
  ): void {
    if (domain !== "") this.#domains.add(domain);
    this.#nodes.push((w) => {
      for (const input of inputs) w.string(1, input);
      for (const output of outputs) w.string(2, output);
      w.string(4, op);
      for (const [name, value] of Object.entries(attributes)) {
        w.message(5, (a) => writeAttribute(a, name, value));
      }
      if (domain !== "") w.string(7, domain);
    });
  }

  encode(): Uint8Array<ArrayBuffer> {
    const model = new ProtoWriter().int(1, IR_VERSION).message(8, (w) => w.string(1, "").int(2, OPSET));
    for (const domain of this.#domains) {
      model.message(8, (w) => w.string(1, domain).int(2, DOMAIN_VERSION));
    }
    return model
      .message(7, (graph) => {
        for (const write of this.#nodes) graph.message(1, write);
        graph.string(2, "oatmill");
        for (const write of this.#initializers) graph.message(5, write);
        for (const write of this.#inputs.values()) graph.message(11, write);
        for (const write of this.#outputs) graph.message(12, write);
      })
      .finish();
  }
}

function writeAttribute(w: ProtoWriter, name: string, value: Attribute): void {
  w.string(1, name);
  if ("float" in value) w.float(2, value.float).int(20, ATTRIBUTE_TYPES.float);
  else if ("int" in value) w.int(3, value.int).int(20, ATTRIBUTE_TYPES.int);
  else {
    for (const i of value.ints) w.int(8, i);
    w.int(20, ATTRIBUTE_TYPES.ints);
  }
}
