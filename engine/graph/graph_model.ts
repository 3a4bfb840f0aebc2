/** Opens a graph (an .onnx file, or the artifact of one) as a model: images or texts in, logits and states out. */
import { basename } from "node:path";
import { OatmillError } from "../../errors.ts";
import type { EncoderModel, EncoderOutput, Pixels, TokenInput } from "../../models/classifier.ts";
import { type AnyHeader, openGraphArtifact } from "../../models/formats/graph_artifact.ts";
import {
  type GraphInput,
  graphInputs,
  type GraphReads,
  graphReads,
  imageFeeds,
  tokenFeeds,
} from "../../models/onnx/graph_inputs.ts";
import { answersOf, type GraphAnswers, labelsOf } from "../../models/onnx/graph_outputs.ts";
import { openGraphSource, positiveField } from "../../models/onnx/graph_source.ts";
import type { GraphTensors } from "../../models/onnx/graph_tensor.ts";
import { isOnnxFile } from "../../models/onnx/onnx_file.ts";
import { encodeModel } from "../../models/onnx/onnx_proto.ts";
import { decodeGraph, type OnnxModel } from "../../models/onnx/open_onnx.ts";
import type { ModelSpec } from "../../models/spec.ts";
import type { SentencePooling } from "../../models/formats/sentence_pooling.ts";
import { loadTokenizer } from "../../models/tokenizer.ts";
import { meanState, unitVector } from "../../models/vectors.ts";
import { LoadTimes } from "../load_times.ts";
import type { OpenedModel, OpenModelOptions } from "../open_model.ts";
import type { Engine, EngineStats } from "../types.ts";
import { type GraphEngine, loadGraph, type PackedGraph } from "./graph_engine.ts";

/** What a graph comes with, from a folder or an artifact. */
interface Described {
  readonly packed: PackedGraph;
  readonly model: OnnxModel;
  readonly header: AnyHeader | null;
  readonly config: Readonly<Record<string, unknown>> | null;
  readonly imageProcessor: Readonly<Record<string, unknown>> | null;
  readonly tokenizerFiles: Parameters<typeof loadTokenizer>[0] | null;
  readonly pooling: SentencePooling | null;
}

/** @throws {OatmillError} what reading the files may throw, unsupported_format when ONNX Runtime refuses the graph */
export async function openGraphModel(path: string, options: OpenModelOptions = {}): Promise<OpenedModel> {
  const { times = new LoadTimes(), threads, tuning, maxWaiting } = options;
  const described = await times.time("header", () => isOnnxFile(path) ? ofFile(path) : ofArtifact(path));
  const { packed, model, header, config, imageProcessor, tokenizerFiles, pooling } = described;
  const tokenizer = tokenizerFiles &&
    await times.time("tokenizer", () => loadTokenizer(tokenizerFiles, { checked: header !== null }));
  // All that may be wrong with it is known before threads are started for it.
  const inputs = graphInputs(model.graph), reads = graphReads(inputs), answers = answersOf(model.graph);
  const labels = reads === "tensors" ? null : labelsOf(config, answers);
  const spec = specOf(config, { reads, hiddenSize: answers.hiddenSize }), { contextLength } = spec;
  const graph = await times.time("weights", () => loadGraph(packed, { threads, tuning, maxWaiting }));
  times.end({ bytes: packed.tensors.reduce((n, t) => n + t.bytes, 0), parallel: false });
  const encoder = reads === "tensors"
    ? null
    : new GraphEncoder(graph, { inputs, reads, answers, contextLength, labels, imageProcessor, pooling });
  return {
    name: packed.name,
    spec,
    engine: new GraphAsEngine(graph, spec),
    tokenizer,
    encoder,
    header,
    times,
  };
}

async function ofArtifact(path: string): Promise<Described> {
  const artifact = await openGraphArtifact(path);
  const { pooling = null } = artifact.header;
  return { ...artifact, packed: artifact, model: decodeGraph(artifact.graph), pooling };
}

/** All of it is ONNX Runtime's. */
async function ofFile(path: string): Promise<Described> {
  const source = await openGraphSource(path);
  const name = basename(path).replace(/\.onnx$/i, ""), graph = encodeModel(source.model);
  const packed = { name, graph, blockChunks: 1, tensors: [], load: () => Promise.resolve() };
  return { ...source, packed, header: null };
}

interface GraphEncoderOptions {
  readonly inputs: readonly GraphInput[];
  readonly reads: Exclude<GraphReads, "tensors">;
  readonly answers: GraphAnswers;
  readonly contextLength: number;
  readonly labels: readonly string[] | null;
  readonly imageProcessor: EncoderModel["imageProcessor"];
  readonly pooling: SentencePooling | null;
}

class GraphEncoder implements EncoderModel {
  readonly reads: EncoderModel["reads"];
  readonly labels: EncoderModel["labels"];
  readonly imageProcessor: EncoderModel["imageProcessor"];

  constructor(readonly graph: GraphEngine, readonly options: GraphEncoderOptions) {
    ({ reads: this.reads, labels: this.labels, imageProcessor: this.imageProcessor } = options);
  }

  async run(input: Pixels | TokenInput, signal?: AbortSignal): Promise<EncoderOutput> {
    if (signal?.aborted) throw new OatmillError("cancelled", "The request was cancelled");
    return this.#read(await this.graph.run(this.#feeds(input)));
  }

  #feeds(input: Pixels | TokenInput): GraphTensors {
    const { inputs, reads, contextLength } = this.options, isImage = "data" in input;
    if (isImage !== (reads === "images")) {
      const given = isImage ? "images" : "text";
      throw new OatmillError("invalid_request", `The model reads ${reads}, not ${given}`, "input");
    }
    if (isImage) return imageFeeds(inputs, input);
    const { length } = input.ids;
    if (length === 0) throw new OatmillError("invalid_request", "The text has no tokens", "input");
    if (length <= contextLength) return tokenFeeds(inputs, input);
    throw new OatmillError(
      "context_length_exceeded",
      `The text has ${length} tokens, the model takes ${contextLength}: make it shorter`,
      "input",
    );
  }

  #read(outputs: GraphTensors): EncoderOutput {
    const { logits, states, pooled } = this.options.answers, { labels } = this.options;
    const values = (name: string | null) => name === null ? null : floatsOf(name, outputs[name]);
    const found = values(states) ?? new Float32Array(), scores = values(logits);
    if (scores && scores.length !== labels?.length) {
      throw new OatmillError(
        "invalid_config",
        `The graph answers ${scores.length} logits, config.json names ${
          labels?.length ?? "none"
        } in id2label`,
        "id2label",
      );
    }
    const width = states === null ? 0 : outputs[states].dims.at(-1)!;
    // What a pooler made is another vector than the one that is asked for; an embedding has been through it all.
    const asked = this.options.pooling !== null && states !== null && pooled !== "sentence_embedding";
    const vector = asked ? null : values(pooled);
    return { states: found, width, pooled: vector ?? this.#pooled(found, width), logits: scores };
  }

  #pooled(states: Float32Array, width: number): Float32Array {
    const { pooling } = this.options;
    const vector = pooling?.pooling === "mean" && width > 0
      ? meanState(states, width)
      : states.slice(0, width);
    return pooling?.unitLength ? unitVector(vector) : vector;
  }
}

/** The graph's parts run without the types that it says its outputs have. */
function floatsOf(name: string, { type, data }: GraphTensors[string]): Float32Array {
  if (data instanceof Float32Array) return new Float32Array(data);
  throw new OatmillError(
    "unsupported_format",
    `Output "${name.slice(0, 200)}" of the graph is ${type}, not float32 as it says`,
  );
}

/** Refuses everything that a graph cannot do: it has neither tokens to generate nor blocks. */
class GraphAsEngine implements Engine {
  readonly contextLength: number;
  readonly vocabSize: number;

  constructor(readonly graph: GraphEngine, spec: ModelSpec) {
    ({ contextLength: this.contextLength, vocabSize: this.vocabSize } = spec);
  }
  get failure(): string | null {
    return this.graph.failure;
  }

  // deno-lint-ignore require-yield -- there is nothing to yield
  async *generate(): ReturnType<Engine["generate"]> & AsyncGenerator<never> {
    await Promise.reject(this.#refuse());
  }
  score(): Promise<Float32Array> {
    return Promise.reject(this.#refuse());
  }
  logits(): Promise<Float32Array> {
    return Promise.reject(this.#refuse());
  }
  encode(): Promise<Float32Array> {
    return Promise.reject(this.#refuse());
  }
  #refuse(): OatmillError {
    return new OatmillError(
      "invalid_request",
      "The model is an ONNX graph: it classifies, it generates nothing",
      "model",
    );
  }

  addAdapter(): Promise<void> {
    return Promise.reject(this.#refuse());
  }
  removeAdapter(): Promise<void> {
    return Promise.reject(this.#refuse());
  }
  adapters(): readonly string[] {
    return [];
  }

  vector(): null {
    return null;
  }

  stats(): EngineStats {
    const { threads, memoryBytes, waiting, runs } = this.graph;
    const running = Math.min(1, waiting);
    return { ...NO_TOKENS, running, waiting: waiting - running, threads, memoryBytes, stepsTotal: runs };
  }

  close(): Promise<void> {
    return this.graph.close();
  }
}

/** What only models of tokens count. */
const NO_TOKENS = {
  kvBlocksUsed: 0,
  kvBlocksTotal: 0,
  kvBlocksCached: 0,
  prefixQueries: 0,
  prefixHits: 0,
  prefixTokens: 0,
  draftedTokens: 0,
  acceptedTokens: 0,
  batchTokens: 0,
} as const;

/** Most tokens of a text where its config does not say. */
const DEFAULT_CONTEXT = 512;

/** What can be said of a graph in the terms of models of blocks: it has none. */
function specOf(
  config: Described["config"],
  { reads, hiddenSize }: { readonly reads: GraphReads; readonly hiddenSize: number | null },
): ModelSpec {
  const number = (name: string, otherwise: number) => positiveField(config, name) ?? otherwise;
  const text = reads === "text";
  return {
    family: "onnx",
    architecture: "ONNX",
    vocabSize: text ? number("vocab_size", 0) : 0,
    hiddenSize: hiddenSize ?? number("hidden_size", 1),
    blocks: 0,
    contextLength: text ? number("max_position_embeddings", DEFAULT_CONTEXT) : 0,
    norm: { kind: "layernorm", eps: 0 },
    attention: { heads: 1, kvHeads: 1, headDim: 1, causal: false, scale: 1, window: null, rope: null },
    mlp: { intermediateSize: 1, activation: "gelu", gated: false },
    tiedEmbeddings: true,
    biases: [],
    bosId: null,
    eosIds: [],
  };
}
