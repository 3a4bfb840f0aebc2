/** The artifact's tensors that are no layers: tables, norms, scales and biases. */
import type { WeightRole } from "../models/checkpoint.ts";
import { packDenseTensor, POSITIONS_FORMAT, ROUTER_FORMAT } from "../models/pack_dense.ts";
import type { CompressionContext } from "./compression_context.ts";
import { routerShape } from "../models/spec.ts";
import { toShared } from "./statistics.ts";
import { factorKind } from "./stored_parts.ts";

export async function writeVector(
  name: string,
  values: Float32Array,
  { writer }: Pick<CompressionContext, "writer">,
): Promise<void> {
  const bytes = new Uint8Array(new Float32Array(values).buffer);
  await writer.add(name, { kind: "vector" }, [values.length], bytes);
}

/** A norm's weights and, where there is one, its bias. */
export async function writeNorm(
  role: WeightRole,
  { checkpoint, writer }: Pick<CompressionContext, "checkpoint" | "writer">,
): Promise<void> {
  for (const name of [role, `${role}.bias` as WeightRole]) {
    if (checkpoint.has(name)) await writeVector(name, (await checkpoint.read(name)).data, { writer });
  }
}

/** Embedding or head, `[vocab, hidden]`: int8 also where the blocks have 4 bits. */
export async function writeTable(
  name: "embedding" | "head",
  values: Float32Array,
  { recipe, checkpoint: { spec }, pool, writer }: CompressionContext,
): Promise<void> {
  if (writer.has(name)) return; // of an earlier run
  const kind = factorKind(recipe), shape = [spec.vocabSize, spec.hiddenSize] as const;
  const bytes = await pool.run<"table">({ kind: "table", values: toShared(values), shape, format: kind });
  await writer.add(name, { kind }, shape, bytes);
}

/** Learned positions, `[context, hidden]`, exactly. */
export async function writePositions(
  values: Float32Array,
  { checkpoint: { spec }, writer }: Pick<CompressionContext, "checkpoint" | "writer">,
): Promise<void> {
  const shape = [spec.contextLength, spec.hiddenSize];
  await writer.add("positions", POSITIONS_FORMAT, shape, packDenseTensor(values, shape, POSITIONS_FORMAT));
}

/** A router `[experts, hidden]`, exactly. */
export async function writeRouter(
  name: string,
  values: Float32Array,
  { checkpoint: { spec }, writer }: Pick<CompressionContext, "checkpoint" | "writer">,
): Promise<void> {
  const shape = routerShape(spec)!;
  await writer.add(name, ROUTER_FORMAT, shape, packDenseTensor(values, shape, ROUTER_FORMAT));
}
