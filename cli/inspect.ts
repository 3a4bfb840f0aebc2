/**
 * `inspect`: what a model is, without loading its weights; with --speed, which of its layers are fast here; with
 * --insight, what its weights and inputs are like; with --rollout, what it looks at in an image.
 */
import { OatmillError } from "../errors.ts";
import { encoderWeights } from "../models/encoder_spec.ts";
import { isArtifact, openArtifact } from "../models/formats/artifact.ts";
import { openCheckpoint } from "../models/open.ts";
import { blockSpecs, linearShapes, type ModelSpec } from "../models/spec.ts";
import type { SyntheticShape } from "../models/synthetic_shapes.ts";
import { SYNTHETIC_SPECS } from "../models/synthetic_specs.ts";
import { agreementLines } from "./agreement.ts";
import { artifactSpeed, specSpeed, speedLines, type SpeedOptions } from "./inspect_speed.ts";
import {
  artifactInsight,
  checkpointInsight,
  insightLines,
  type InsightOptions,
  layerTable,
} from "./inspect_insight.ts";
import { type ArtifactRollout, artifactRollout, rolloutLines, rolloutResult } from "./inspect_rollout.ts";
import { megabytes, printResult } from "./output.ts";
import { recoveryLines } from "./recovery_report.ts";
import type { ReportInput } from "./report/report.ts";

export interface InspectOptions extends SpeedOptions, InsightOptions {
  readonly json?: boolean;
  readonly speed?: boolean;
  /** Image whose attention rollout is shown. */
  readonly rollout?: string;
  /** HTML file to write. */
  readonly report?: string;
  /** The shape of a real model instead of a model. */
  readonly synthetic?: SyntheticShape;
}

export async function inspect(path: string | undefined, options: InspectOptions): Promise<void> {
  if (path === undefined) return await inspectShape(options.synthetic!, options);
  return await isArtifact(path)
    ? await inspectArtifact(path, options)
    : await inspectCheckpoint(path, options);
}

async function inspectArtifact(path: string, options: InspectOptions): Promise<void> {
  const artifact = await openArtifact(path), { header } = artifact;
  const speed = options.speed ? await artifactSpeed(header, options) : null;
  const insight = await artifactInsight(artifact, options);
  const rollout = options.rollout === undefined ? null : await artifactRollout(artifact, options.rollout);
  await writeReport({ name: header.name, spec: header.spec, header, insight, rollout }, options);
  const lines = () => [
    ...specLines(header.name, header.spec),
    `recipe       ${JSON.stringify(header.recipe)}`,
    `size         ${megabytes(header.bytes)} in ${header.tensors.length} tensors (dense float16: ${
      megabytes(header.denseBytes)
    })`,
    ...header.perplexity
      ? [
        `perplexity   ${header.perplexity.dense.toFixed(3)} dense, ${
          header.perplexity.compressed.toFixed(3)
        } compressed`,
      ]
      : [],
    ...recoveryLines(header.recovery),
    ...agreementLines(header.agreement),
    ...rollout ? rolloutLines(rollout) : [],
    "",
    ...layerTable(header, insight),
    ...insight ? ["", ...insightLines(insight)] : [],
    ...speed ? ["", ...speedLines(speed)] : [],
  ];
  const { tensors, ...rest } = header;
  const result = {
    kind: "artifact",
    ...rest,
    tensors: tensors.length,
    ...rollout && { rollout: rolloutResult(rollout) },
    ...insight && { insight },
    ...speed && { speed },
  };
  printResult(result, { json: options.json, lines });
}

async function inspectCheckpoint(path: string, options: InspectOptions): Promise<void> {
  if (options.rollout !== undefined) {
    throw new OatmillError(
      "invalid_request",
      `Cannot show S and L of "${path}": it is no artifact`,
      "rollout",
    );
  }
  const checkpoint = await openCheckpoint(path);
  checkpoint.close();
  const { spec, format, tensorBytes, tokenizerFiles } = checkpoint;
  const speed = options.speed ? await specSpeed(spec, options) : null;
  const insight = await checkpointInsight(path, options);
  await writeReport({ name: path, spec, header: null, insight, rollout: null }, options);
  const result = {
    kind: format,
    path,
    spec,
    tensor_bytes: tensorBytes,
    parameters: parameterCount(spec),
    tokenizer: tokenizerFiles !== null,
    chat_template: tokenizerFiles?.chatTemplate !== null && tokenizerFiles !== null,
    ...insight && { insight },
    ...speed && { speed },
  };
  const lines = () => [
    ...specLines(path, spec),
    `stored as    ${format}, ${megabytes(tensorBytes)}`,
    `tokenizer    ${result.tokenizer ? "yes" : "no"}, chat template ${result.chat_template ? "yes" : "no"}`,
    ...insight ? ["", ...layerTable(null, insight), "", ...insightLines(insight)] : [],
    ...speed ? ["", ...speedLines(speed)] : [],
  ];
  printResult(result, { json: options.json, lines });
}

/** Plots load a library of 10 MB: only where a report is wanted. */
async function writeReport(
  { rollout, ...input }: Omit<ReportInput, "parameters" | "rollout"> & {
    readonly rollout: ArtifactRollout | null;
  },
  { report }: Pick<InspectOptions, "report">,
): Promise<void> {
  if (report === undefined) return;
  const { reportHtml } = await import("./report/report.ts");
  const { rolloutSection } = await import("./report/rollout_pictures.ts");
  const pictures = rollout && await rolloutSection(rollout);
  const parameters = parameterCount(input.spec);
  await Deno.writeTextFile(report, await reportHtml({ ...input, parameters, rollout: pictures }));
}

async function inspectShape(shape: SyntheticShape, options: InspectOptions): Promise<void> {
  const spec = SYNTHETIC_SPECS[shape];
  const speed = options.speed ? await specSpeed(spec, options) : null;
  const result = { kind: "synthetic", spec, parameters: parameterCount(spec), ...speed && { speed } };
  const lines = () => [...specLines(shape, spec), ...speed ? ["", ...speedLines(speed)] : []];
  printResult(result, { json: options.json, lines });
}

function specLines(name: string, spec: ModelSpec): string[] {
  const { headDim } = spec.attention;
  const blocks = blockSpecs(spec);
  const sizes = (of: (block: ModelSpec) => number) => range(blocks.map(of));
  const sliding = blocks.map(({ attention }) => attention.window).filter((window) => window !== null);
  const windows = [...new Set(sliding)].map((window) => {
    const count = sliding.filter((other) => other === window).length;
    return `window ${window}${count < spec.blocks ? ` in ${count} blocks` : ""}`;
  });
  return [
    `model        ${name}`,
    `family       ${spec.family} (${spec.architecture}), ${
      (parameterCount(spec) / 1e6).toFixed(1)
    } M parameters`,
    `shape        ${spec.blocks} blocks of ${spec.hiddenSize}, MLP ${
      sizes((b) => b.mlp.intermediateSize)
    } (${spec.mlp.activation})${expertsText(spec)}, ${sizes((b) => b.attention.heads)} heads of ${headDim}, ${
      sizes((b) => b.attention.kvHeads)
    } KV heads`,
    ...endLines(spec),
    `context      ${spec.contextLength}${windows.map((text) => `, ${text}`).join("")}`,
  ];
}

/** What stands before and behind the blocks. */
function endLines({ encoder, attention, vocabSize, tiedEmbeddings }: ModelSpec): string[] {
  const tied = attention.causal && tiedEmbeddings ? ", head tied to the embedding" : "";
  if (!encoder) return [`vocabulary   ${vocabSize}${tied}`];
  const { patches, labels } = encoder,
    reads = patches
      ? `images of ${patches.width} x ${patches.height} pixels, in patches of ${patches.size} x ${patches.size}`
      : `text, vocabulary ${vocabSize}`;
  return [`reads        ${reads}`, ...labels.length > 0 ? [`labels       ${labels.length}`] : []];
}

function expertsText({ mlp: { experts } }: ModelSpec): string {
  return experts ? ` in ${experts.count} experts, ${experts.perToken} a token` : "";
}

/** As in "1152-1536", or one number where blocks do not differ. */
function range(sizes: readonly number[]): string {
  const least = Math.min(...sizes), most = Math.max(...sizes);
  return least === most ? `${most}` : `${least}-${most}`;
}

/** Of matrices; norms and biases are left out. */
export function parameterCount(spec: ModelSpec): number {
  const blocks = blockSpecs(spec)
    .flatMap((block) => Object.values(linearShapes(block)))
    .reduce((sum, shape) => sum + (shape ? shape[0] * shape[1] : 0), 0);
  const ends = encoderWeights(spec).map(({ shape }) => shape.length > 1 ? shape[0] * shape[1] : 0);
  const positions = spec.learnedPositions ? spec.contextLength : 0;
  const routers = spec.blocks * (spec.mlp.experts?.count ?? 0);
  return blocks + ends.reduce((a, b) => a + b, 0) +
    spec.hiddenSize * (routers + positions + spec.vocabSize * (spec.tiedEmbeddings ? 1 : 2));
}
