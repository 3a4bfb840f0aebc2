/** Export as one GGUF file that llama.cpp opens: its names and metadata, q and k rows in its order, its block types. */
import { basename } from "node:path";
import { OatmillError } from "../errors.ts";
import type { Family } from "../models/families/mod.ts";
import { BLOCK, quantizeBlocks } from "../models/formats/gguf_blocks.ts";
import { GGUF_FIELDS, ggufKey } from "../models/formats/gguf_config.ts";
import { openGguf } from "../models/open_gguf.ts";
import type { ModelSpec } from "../models/spec.ts";
import type { DenseModel } from "./dense_model.ts";
import { encodeFloats } from "./float_types.ts";
import { type GgufEntry, ggufHeader, type GgufTensorInfo, padding } from "./gguf_encoder.ts";
import { ropeScaling } from "./gguf_rope.ts";
import { tokenizerMetadata } from "./gguf_tokenizer.ts";
import { differentField } from "./same_spec.ts";
import { buildTensor, type StoredTensor, storedTensors } from "./stored_tensors.ts";
import { writeWhole } from "./write_folder.ts";

export type GgufType = "f32" | "f16" | "bf16" | "q8_0";

export interface GgufOptions {
  readonly type: GgufType;
  readonly onTensor?: (done: number, total: number) => void;
}

/** llama_ftype of llama.cpp. */
const FILE_TYPES = { f32: 0, f16: 1, q8_0: 7, bf16: 32 } as const satisfies Record<GgufType, number>;
const QUANTIZATION_VERSION = 2;

/** A tensor with the type it gets and how its values are made. */
interface OutTensor extends GgufTensorInfo {
  read(): Promise<Float32Array<ArrayBuffer>>;
}

/**
 * @param out the file to make
 * @throws {OatmillError} conflict (`out` exists), storage_failed; unsupported_architecture and unsupported_format for what
 *   llama.cpp has no words for
 */
export async function exportGguf(
  model: DenseModel,
  out: string,
  { type, onTensor }: GgufOptions,
): Promise<{ readonly files: readonly string[]; readonly bytes: number }> {
  const gguf = ggufOf(model.family), { spec } = model.weights;
  const { metadata: scaling, divisors } = ropeScaling(model, gguf.architecture);
  const stored = storedTensors(spec, gguf.names, { permutedRows: gguf.permutedRows });
  const tensors = stored.map((tensor): OutTensor => ({
    ...sized(tensor, type),
    read: () => buildTensor(tensor, (role) => model.weights.read(role)),
  }));
  if (divisors) tensors.push(divisorTensor(divisors));
  const metadata = { ...modelMetadata(model, gguf, type), ...scaling, ...vocabulary(model) };
  return await writeWhole(out, async (path) => {
    await writeFile(path, ggufHeader(metadata, tensors), tensors, onTensor);
    await requireReadBack(path, spec);
    return { files: [basename(out)], bytes: tensors.reduce((sum, { bytes }) => sum + bytes, 0) };
  });
}

function ggufOf({ name, gguf }: Family): NonNullable<Family["gguf"]> {
  if (gguf) return gguf;
  throw new OatmillError(
    "unsupported_architecture",
    `Cannot write ${name} as GGUF: Oatmill does not know its GGUF layout; --to safetensors can be converted by llama.cpp`,
  );
}

/**
 * Rows that are no whole blocks stay f16, as llama.cpp's converter leaves them; vectors and routers stay f32, as it needs
 * them and leaves them.
 */
function sized({ name, shape, parts: [{ role }] }: StoredTensor, wanted: GgufType): GgufTensorInfo {
  const count = shape.reduce((a, b) => a * b, 1), width = shape.at(-1)!;
  const exact = shape.length === 1 || role.endsWith(".router");
  const type = exact ? "f32" : wanted === "q8_0" && width % BLOCK !== 0 ? "f16" : wanted;
  const bytes = { f32: 4 * count, f16: 2 * count, bf16: 2 * count, q8_0: count / BLOCK * 34 }[type];
  return { name, shape, type: type.toUpperCase(), bytes };
}

function divisorTensor(divisors: readonly number[]): OutTensor {
  const read = () => Promise.resolve(Float32Array.from(divisors));
  return {
    name: "rope_freqs.weight",
    shape: [divisors.length],
    type: "F32",
    bytes: 4 * divisors.length,
    read,
  };
}

async function writeFile(
  path: string,
  header: Uint8Array,
  tensors: readonly OutTensor[],
  onTensor?: GgufOptions["onTensor"],
): Promise<void> {
  using file = await Deno.open(path, { write: true, createNew: true });
  const writer = file.writable.getWriter();
  await writer.write(header as Uint8Array<ArrayBuffer>);
  for (const [i, { name, type, bytes, read }] of tensors.entries()) {
    const values = await read();
    await writer.write(
      type === "Q8_0"
        ? quantizeBlocks("Q8_0", values)
        : encodeFloats(values, type.toLowerCase() as "f32" | "f16" | "bf16", name),
    );
    await writer.write(padding(bytes));
    onTensor?.(i + 1, tensors.length);
  }
  await writer.close();
}

/** A window of all blocks is no part of GGUF's llama and its kin: up to it the model is the same. */
const contextOf = ({ contextLength, attention, blockAttention }: ModelSpec): number =>
  Math.min(contextLength, blockAttention ? Infinity : attention.window ?? Infinity);

function modelMetadata(
  { weights: { spec }, name, family }: DenseModel,
  { architecture }: NonNullable<Family["gguf"]>,
  type: GgufType,
): Record<string, GgufEntry> {
  const { attention: { heads, kvHeads, headDim, rope, softCap }, mlp, norm, logitsSoftCap } = spec;
  const window = spec.blockAttention?.kinds.find((kind) => kind.window !== null)?.window;
  const optional = (value: number | null | undefined, entry: (value: number) => GgufEntry) =>
    value === null || value === undefined ? undefined : entry(value);
  const u32 = (value: number) => ({ u32: value }), f32 = (value: number) => ({ f32: value });
  const fields: Record<string, GgufEntry | undefined> = {
    hidden_size: u32(spec.hiddenSize),
    intermediate_size: u32(mlp.intermediateSize),
    num_hidden_layers: u32(spec.blocks),
    num_attention_heads: u32(heads),
    num_key_value_heads: u32(kvHeads),
    head_dim: u32(headDim),
    num_local_experts: optional(mlp.experts?.count, u32),
    num_experts_per_tok: optional(mlp.experts?.perToken, u32),
    vocab_size: u32(spec.vocabSize),
    max_position_embeddings: u32(contextOf(spec)),
    rms_norm_eps: norm.kind === "rmsnorm" ? f32(norm.eps) : undefined,
    sliding_window: optional(window, u32),
    attn_logit_softcapping: optional(softCap, f32),
    final_logit_softcapping: optional(logitsSoftCap, f32),
    use_parallel_residual: family.variants?.some(({ when }) => "use_parallel_residual" in when)
      ? { bool: spec.parallel ?? false }
      : undefined,
  };
  const present = Object.entries(fields).filter((field): field is [string, GgufEntry] =>
    field[1] !== undefined
  );
  return {
    "general.architecture": { string: architecture },
    "general.name": { string: name },
    "general.file_type": { u32: FILE_TYPES[type] },
    "general.quantization_version": { u32: QUANTIZATION_VERSION },
    ...Object.fromEntries(
      present.map(([field, value]) => [ggufKey(GGUF_FIELDS[field], architecture), value]),
    ),
    ...norm.kind === "layernorm" ? { [`${architecture}.attention.layer_norm_epsilon`]: f32(norm.eps) } : {},
    [`${architecture}.attention.value_length`]: u32(headDim),
    ...rope ? { [`${architecture}.rope.dimension_count`]: u32(rope.dims) } : {},
  };
}

/** Without a tokenizer llama.cpp still opens the file, and takes token ids. */
function vocabulary({ weights: { spec, tokenizerFiles } }: DenseModel): Record<string, GgufEntry> {
  if (!tokenizerFiles) return { "tokenizer.ggml.model": { string: "no_vocab" } };
  const { vocabSize: rows, bosId, eosIds } = spec;
  return tokenizerMetadata(tokenizerFiles, { rows, bosId, eosId: eosIds[0] ?? null });
}

/** What metadata cannot say is lost; then the file would be another model. */
async function requireReadBack(path: string, spec: ModelSpec): Promise<void> {
  const checkpoint = await openGguf(path);
  checkpoint.close();
  const attention = spec.blockAttention ? spec.attention : { ...spec.attention, window: null };
  const plain = { ...spec, attention, contextLength: contextOf(spec), family: checkpoint.spec.family };
  const field = differentField(plain, checkpoint.spec);
  if (field === null) return;
  throw new OatmillError(
    "unsupported_format",
    `Cannot write the model as GGUF: its metadata has no way to say its ${field}`,
    field,
  );
}
