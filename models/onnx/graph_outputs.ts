/** Which of a graph's outputs are what: by the names that exporters of transformers give, else by their rank. */
import { OatmillError } from "../../errors.ts";
import type { GraphProto, ValueInfo } from "./onnx_proto.ts";
import { ELEMENT } from "./tensor_values.ts";

/** Names of outputs; null: the graph has none. */
export interface GraphAnswers {
  /** `[1, labels]` */
  readonly logits: string | null;
  /** How many labels, where the graph says it. */
  readonly labelCount: number | null;
  /** `[1, n, hidden]` */
  readonly states: string | null;
  /** Of a state, where the graph says it. */
  readonly hiddenSize: number | null;
  /** `[1, hidden]` */
  readonly pooled: string | null;
}

/** As many as configs of other models may name; a graph only has to claim a number. */
const MAX_LABELS = 1 << 17;
const LOGITS = "logits";
const POOLED = ["pooler_output", "sentence_embedding", "image_embeds", "text_embeds"];

const rankOf = ({ type }: ValueInfo): number | undefined => type?.tensorType?.shape?.dim.length;

function lastDim(info: ValueInfo | null): number | null {
  const last = info?.type?.tensorType?.shape?.dim.at(-1)?.dim;
  return last?.case === "dimValue" ? Number(last.value) : null;
}

export function answersOf({ output }: Pick<GraphProto, "output">): GraphAnswers {
  const floats = output.filter(({ type }) => type?.tensorType?.elemType === ELEMENT.float);
  const pooled = floats.find(({ name }) => POOLED.includes(name)) ?? null;
  const states = floats.find(({ name }) => name === "last_hidden_state") ??
    floats.find((info) => rankOf(info) === 3 && info.name !== LOGITS) ?? null; // a decoder's logits are no states
  const flat = floats.filter((info) => rankOf(info) === 2 && info !== pooled);
  const logits = flat.find(({ name }) => name === LOGITS) ??
    (!states && !pooled && flat.length === 1 ? flat[0] : null);
  return {
    logits: logits?.name ?? null,
    labelCount: lastDim(logits),
    states: states?.name ?? null,
    hiddenSize: lastDim(states),
    pooled: pooled?.name ?? null,
  };
}

/**
 * Names of the labels, in the order of logits: of config.json's id2label, else LABEL_0 and so on, as transformers has them.
 * @returns null for a graph without logits
 * @throws {OatmillError} invalid_config: names and logits differ in number, or neither says how many there are
 */
export function labelsOf(
  config: Readonly<Record<string, unknown>> | null,
  { logits, labelCount }: GraphAnswers,
): string[] | null {
  if (logits === null) return null;
  const given = config?.id2label;
  const names = typeof given === "object" && given !== null
    ? given as Readonly<Record<string, unknown>>
    : null;
  const count = labelCount ?? (names ? Object.keys(names).length : 0);
  if (count > MAX_LABELS) {
    throw new OatmillError(
      "invalid_config",
      `Cannot name the graph's labels: it has ${count} logits, at most ${MAX_LABELS} are allowed`,
    );
  }
  const labels = Array.from({ length: count }, (_, i) => names ? names[i] : `LABEL_${i}`);
  const fits = count > 0 && (!names || Object.keys(names).length === count);
  if (fits && labels.every((label): label is string => typeof label === "string")) return labels;
  throw new OatmillError(
    "invalid_config",
    `Cannot name the graph's labels: it has ${labelCount ?? "any number of"} logits, config.json names ${
      names ? Object.keys(names).length : "none"
    } in id2label`,
    "id2label",
  );
}
