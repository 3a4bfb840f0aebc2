/** preprocessor_config.json: how a model wants its images, in today's layout and the older ones still on hubs. */
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import { RESAMPLING, type Resampling } from "./resample.ts";

/** Exactly this size, or the shorter edge at this length and the longer one in proportion. */
export type ResizeTo =
  | { readonly width: number; readonly height: number }
  | { readonly shortestEdge: number; readonly longestEdge?: number };

/** What is done, in this order; null leaves a step out. */
export interface ProcessorConfig {
  readonly resize: { readonly to: ResizeTo; readonly how: Resampling } | null;
  readonly crop: { readonly width: number; readonly height: number } | null;
  /** Levels 0..255 are multiplied by it. */
  readonly rescale: number | null;
  readonly normalize: { readonly mean: readonly number[]; readonly std: readonly number[] } | null;
}

/** Models that read more would take minutes an image on CPUs; it also bounds what a hostile config can ask for. */
export const MAX_EDGE = 4096;

const edge = z.int().min(1).max(MAX_EDGE);
const exact = z.object({ height: edge, width: edge });
const shortest = z.object({ shortest_edge: edge, longest_edge: edge.nullish() });
const channels = z.array(z.number().min(-1e3).max(1e3)).length(3);
const configSchema = z.object({
  image_processor_type: z.string().max(100).nullish(),
  feature_extractor_type: z.string().max(100).nullish(),
  do_resize: z.boolean().nullish(),
  size: z.union([edge, exact, shortest]).nullish(),
  resample: z.int().min(0).max(RESAMPLING.length - 1).nullish(),
  do_center_crop: z.boolean().nullish(),
  crop_size: z.union([edge, exact]).nullish(),
  do_rescale: z.boolean().nullish(),
  rescale_factor: z.number().positive().max(1).nullish(),
  do_normalize: z.boolean().nullish(),
  image_mean: channels.nullish(),
  image_std: z.array(z.number().positive().max(1e3)).length(3).nullish(),
});
type Fields = z.infer<typeof configSchema>;

/** What a field means that is not there, by the processor's name in transformers. */
interface Defaults {
  readonly size: ResizeTo;
  /** A size that is one number: the shorter edge, or both edges. */
  readonly oneNumber: "shortest" | "square";
  readonly how: Resampling;
  readonly crop: number | null;
  readonly mean: readonly number[];
  readonly std: readonly number[];
}
const HALF = [0.5, 0.5, 0.5];
const IMAGENET = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
/** CLIP's training data. */
const CLIP = { mean: [0.48145466, 0.4578275, 0.40821073], std: [0.26862954, 0.26130258, 0.27577711] };
const SHORTEST: Defaults = {
  size: { shortestEdge: 224 },
  oneNumber: "shortest",
  how: "bicubic",
  crop: 224,
  ...CLIP,
};
const PROCESSORS: Record<string, Defaults> = {
  ViT: {
    size: { width: 224, height: 224 },
    oneNumber: "square",
    how: "bilinear",
    crop: null,
    mean: HALF,
    std: HALF,
  },
  DeiT: {
    size: { width: 256, height: 256 },
    oneNumber: "square",
    how: "bicubic",
    crop: 224,
    ...IMAGENET,
  },
  Bit: SHORTEST,
  CLIP: SHORTEST,
};

/**
 * @param config of preprocessor_config.json
 * @throws {OatmillError} invalid_config naming the field; unsupported_architecture for another processor
 */
export function parseProcessorConfig(
  config: Readonly<Record<string, unknown>>,
  source = "preprocessor_config.json",
): ProcessorConfig {
  const parsed = configSchema.safeParse(config);
  if (!parsed.success) {
    const [{ path, message }] = parsed.error.issues;
    throw new OatmillError(
      "invalid_config",
      `Cannot read ${source}: ${path.join(".") || "it"}: ${message}`,
      String(path[0] ?? "") || null,
    );
  }
  const fields = parsed.data, known = defaultsOf(fields, source);
  return {
    resize: fields.do_resize ?? true
      ? { to: sizeOf(fields.size, known), how: RESAMPLING[fields.resample ?? RESAMPLING.indexOf(known.how)] }
      : null,
    crop: cropOf(fields, known),
    rescale: fields.do_rescale ?? true ? fields.rescale_factor ?? 1 / 255 : null,
    normalize: fields.do_normalize ?? true
      ? { mean: fields.image_mean ?? known.mean, std: fields.image_std ?? known.std }
      : null,
  };
}

/** `ViTImageProcessorFast` and `ViTFeatureExtractor` are `ViT`; without a name it is ViT's, as in transformers. */
function defaultsOf(fields: Fields, source: string): Defaults {
  const type = fields.image_processor_type ?? fields.feature_extractor_type ?? "ViTImageProcessor";
  const name = type.replace(/(ImageProcessor(Fast|Pil)?|FeatureExtractor)$/, "");
  if (Object.hasOwn(PROCESSORS, name)) return PROCESSORS[name];
  const known = Object.keys(PROCESSORS).map((n) => `${n}ImageProcessor`).join(", ");
  throw new OatmillError(
    "unsupported_architecture",
    `Cannot prepare images as ${source} says: image_processor_type is ${
      JSON.stringify(type)
    }, known are ${known}`,
    "image_processor_type",
  );
}

function sizeOf(size: Fields["size"], known: Defaults): ResizeTo {
  if (size === undefined || size === null) return known.size;
  if (typeof size === "number") {
    return known.oneNumber === "square" ? { width: size, height: size } : { shortestEdge: size };
  }
  if ("height" in size) return size;
  return { shortestEdge: size.shortest_edge, longestEdge: size.longest_edge ?? undefined };
}

function cropOf(fields: Fields, known: Defaults): ProcessorConfig["crop"] {
  if (!(fields.do_center_crop ?? known.crop !== null)) return null;
  const size = fields.crop_size ?? known.crop ?? 224;
  return typeof size === "number" ? { width: size, height: size } : size;
}
