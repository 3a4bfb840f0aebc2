/** Inputs of one request through an encoder: read, run side by side, measured. What classify and embeddings share. */
import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { encodeTexts } from "../engine/long_texts.ts";
import { needTokenizer, type OpenedModel } from "../engine/open_model.ts";
import { OatmillError } from "../errors.ts";
import type { EncoderModel, EncoderOutput, Pixels, TokenInput } from "../models/classifier.ts";
import { failSpan, SpanKind } from "../telemetry/telemetry.ts";
import { processorOf } from "../vision/processor_of.ts";
import type { Lease } from "./engine_pool.ts";
import { errorTypeOf, logUnexpected } from "./errors.ts";
import { imageBytes, isDataUrl } from "./image_input.ts";
import { shortVersion } from "./model_reference.ts";
import { currentAccount, currentRecord } from "./request_context.ts";
import type { Services } from "./services.ts";
import { wholeAnswer } from "./whole_answer.ts";

/** Text (or an image's data URL), token ids, or an image file. */
export type RawInput = string | readonly number[] | Uint8Array;

export interface EncodingOptions {
  readonly operation: "classify" | "embeddings";
  /** As the request names it. */
  readonly model: string;
  /** The field that inputs came in. */
  readonly param: string;
  readonly request: Request;
  /** Of {@linkcode encodedAnswer}. */
  readonly signal: AbortSignal;
  readonly services: Services;
}
export interface Encoded<T> {
  /** By input. */
  readonly results: readonly T[];
  /** Of all texts; images have none. */
  readonly tokens: number;
}
/** What runs the inputs. */
export type OpenedEncoder = OpenedModel & { readonly encoder: EncoderModel };

/** Most inputs of one request: OpenAI's, which clients that send batches know. */
const MAX_INPUTS = 2048;
/** Inputs under way at once: they fill the engine's steps and leave its queue to other requests. */
const AT_ONCE = 8;

export const encodingUsage = z.object({ prompt_tokens: z.int(), total_tokens: z.int() });

/** Answers with what `make` makes; its signal is aborted when the client leaves. */
export async function encodedAnswer(
  c: Context,
  { limits }: Services,
  make: (signal: AbortSignal) => Promise<object>,
): Promise<Response> {
  const left = new AbortController(), signal = AbortSignal.any([c.req.raw.signal, left.signal]);
  return await wholeAnswer(c, make(signal), { leave: () => left.abort(), ...limits });
}

/**
 * Runs every input and keeps of each what `read` makes of the answer; `check` sees the model before anything runs.
 * @throws {OatmillError} what `check`, the registry, the image files or the engine refuse
 */
export async function encodeAll<T>(
  inputs: readonly RawInput[],
  { check, read }: {
    readonly check?: (model: OpenedEncoder) => void;
    readonly read: (output: EncoderOutput, model: OpenedEncoder) => T;
  },
  options: EncodingOptions,
): Promise<Encoded<T>> {
  if (inputs.length > MAX_INPUTS) {
    throw invalid(`Cannot take more than ${MAX_INPUTS} inputs in one request`, options.param);
  }
  using lease = await options.services.registry.acquire(options.model);
  return await measured(lease, options, async () => {
    const model = encoderOnly(lease.model, options);
    check?.(model);
    const account = currentAccount();
    let tokens = 0;
    const results = await mapSome(inputs, async (raw) => {
      const input = await readInput(raw, model, options);
      const output = await model.encoder.run(input, options.signal);
      if ("ids" in input) {
        tokens += input.ids.length;
        account?.charge(input.ids.length); // now: a later input may be refused, and this one was computed
      }
      checkFinite(output, options);
      return read(output, model);
    }).catch((error) => {
      throw lease.closed ?? error;
    });
    return { results, tokens };
  });
}

/** JSON has no numbers for them, and nobody could use them. */
function checkFinite({ logits, pooled }: EncoderOutput, { model, param }: EncodingOptions): void {
  if (pooled.every(Number.isFinite) && (logits?.every(Number.isFinite) ?? true)) return;
  throw new OatmillError(
    "non_finite_activations",
    `The model "${model}" answers NaN or infinity to an input`,
    param,
  );
}

function encoderOnly(model: OpenedModel, { operation, model: id }: EncodingOptions): OpenedEncoder {
  const { encoder } = model;
  if (encoder) return { ...model, encoder };
  const why = model.spec.family === "onnx"
    ? "its graph reads neither images nor token ids"
    : "it is a decoder; POST /v1/completions continues texts with it";
  throw invalid(`Cannot use the model "${id}" for ${operation}: ${why}`, "model");
}

async function readInput(
  raw: RawInput,
  model: OpenedEncoder,
  { model: id, param, signal, services }: EncodingOptions,
): Promise<Pixels | TokenInput> {
  if (typeof raw === "string" && !(isDataUrl(raw) && model.encoder.reads === "images")) {
    if (model.encoder.reads === "text") {
      const [ids] = await encodeTexts(model, needTokenizer(model), {
        texts: [raw],
        param,
        signal,
      });
      return { ids };
    }
    throw invalid(`The model "${id}" reads images: send files, or data URLs in "${param}"`, param);
  }
  if (typeof raw !== "string" && !(raw instanceof Uint8Array)) return { ids: knownIds(raw, model, param) };
  const config = processorOf(id, model.encoder);
  const bytes = typeof raw === "string" ? imageBytes(raw, param) : raw;
  return await services.images.read(bytes, { config });
}

function knownIds(ids: readonly number[], model: OpenedEncoder, param: string): readonly number[] {
  const { vocabSize } = model.engine; // 0: not known of a graph, or the model reads images, which it says itself
  const outside = vocabSize > 0 ? ids.find((id) => id >= vocabSize) : undefined;
  if (outside === undefined) return ids;
  throw invalid(
    `Invalid value of "${param}": token ${outside} is not below ${vocabSize}`,
    param,
  );
}

/** In order, {@linkcode AT_ONCE} at a time; after the first failure no more are begun. */
async function mapSome<I, T>(items: readonly I[], work: (item: I) => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  let next = 0, failed = false;
  const lane = async () => {
    while (next < items.length && !failed) {
      const i = next++;
      try {
        results[i] = await work(items[i]);
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, items.length) }, lane));
  return results;
}

/** A span, the request's duration and its tokens; what the client no longer waits for is stopped. */
async function measured<T>(
  { id: model, version }: Lease,
  { operation, request, signal, services: { telemetry } }: EncodingOptions,
  work: () => Promise<Encoded<T>>,
): Promise<Encoded<T>> {
  const start = performance.now(),
    attributes = {
      "gen_ai.operation.name": operation,
      "gen_ai.provider.name": "oatmill",
      "gen_ai.request.model": model,
    };
  const span = telemetry.startSpan(`${operation} ${model}`, {
    parent: telemetry.contextOf(request.headers),
    kind: SpanKind.SERVER,
    attributes,
  });
  const endRecord = currentRecord()?.begin();
  const end = (errorType: string | null, inputs: number, tokens: number) => {
    const seconds = (performance.now() - start) / 1000;
    const all = errorType === null ? attributes : { ...attributes, "error.type": errorType };
    telemetry.record("requestDuration", seconds, all);
    if (tokens > 0) telemetry.record("tokenUsage", tokens, { ...all, "gen_ai.token.type": "input" });
    span.setAttribute("gen_ai.usage.input_tokens", tokens);
    if (errorType !== null) failSpan(span, errorType);
    span.end();
    endRecord?.({
      operation,
      model,
      version: shortVersion(version),
      inputs,
      prompt_tokens: tokens,
      ...errorType === null ? {} : { error: errorType },
    }, span);
  };
  try {
    const encoded = await work();
    end(null, encoded.results.length, encoded.tokens);
    return encoded;
  } catch (error) {
    end(signal.aborted ? "client_left" : errorTypeOf(error), 0, 0);
    if (!signal.aborted) logUnexpected(error, operation);
    throw error;
  }
}

const invalid = (message: string, param: string) => new OatmillError("invalid_request", message, param);
