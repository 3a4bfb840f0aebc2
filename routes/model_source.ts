/**
 * What the files of a submission are together, and what its recipe and name mean: shared by the ways in which a model
 * reaches a job (routes/models.ts, routes/compressions.ts).
 */
import { dirname, join } from "node:path";
import { OatmillError } from "../errors.ts";
import { isPickleName, pickleRefused } from "../models/formats/pickle.ts";
import { type Recipe, recipeSchema } from "../models/recipe.ts";
import { type UploadKind, uploadKind } from "../store/upload.ts";
import { invalidInput } from "./errors.ts";

/** Where images stand, together: calibration and evaluation take a folder of them by this name. */
const IMAGES_FOLDER = "images";

export interface SourceFile {
  /** Of a stored file: recipes may name it by this too. */
  readonly id?: string;
  readonly name: string;
  readonly kind: UploadKind;
  readonly path: string;
}

/** A model's id: safe in a URL and a log line. */
const MODEL_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$/;

/** Where a file of this name goes, below the job's folder. @throws {OatmillError} unsupported_format */
export function modelFilePlace(name: string): string {
  if (isPickleName(name)) throw pickleRefused(name, "files");
  return uploadKind(name) === "image" ? join(IMAGES_FOLDER, name) : name;
}

const invalid = (message: string, param: string) => new OatmillError("invalid_request", message, param);

/** What the files are together: one archive, one GGUF file, one graph with what belongs to it, or a folder. */
export function readSource(
  files: readonly SourceFile[],
  folder: string,
): { archive: string | null; source: string } {
  const of = (kind: UploadKind) => files.filter((f) => f.kind === kind);
  const [archives, ggufs, graphs, parts] = [of("archive"), of("gguf"), of("onnx"), of("folder")];
  // A graph's config.json and tokenizer lie beside it.
  const folders = graphs.length > 0 ? 0 : Math.min(1, parts.length + of("onnx_data").length);
  if (archives.length + ggufs.length + graphs.length + folders !== 1) {
    const what = files.length === 0 ? "no files" : files.map((f) => f.name).join(", ").slice(0, 500);
    throw invalid(
      `Send one model (a folder's files, a .gguf file, an .onnx file or an archive), not ${what}`,
      "files",
    );
  }
  if (archives.length === 1) return { archive: archives[0].path, source: join(folder, "unpacked") };
  if (ggufs.length === 1) return { archive: null, source: ggufs[0].path };
  if (graphs.length === 1) return { archive: null, source: graphs[0].path };
  if (!parts.some((f) => f.name === "config.json")) {
    throw invalid("Cannot read a model folder without config.json", "files");
  }
  if (!parts.some((f) => f.name.endsWith(".safetensors"))) {
    throw invalid("Cannot read a model folder without .safetensors files", "files");
  }
  return { archive: null, source: folder };
}

/** A form's field. @throws {OatmillError} invalid_recipe */
export function parseRecipe(text = "{}"): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new OatmillError(
      "invalid_recipe",
      `Field "recipe" is not JSON: ${(error as Error).message}`,
      "recipe",
    );
  }
}

/** @throws {OatmillError} invalid_recipe */
export function readRecipe(value: unknown): Recipe {
  const parsed = recipeSchema.safeParse(value);
  if (!parsed.success) throw invalidInput(parsed.error, { code: "invalid_recipe", within: "recipe" });
  return parsed.data;
}

/** What a recipe names must have come with the upload, a text or all images: it never names a path on the server. */
export function withPaths(recipe: Recipe, files: readonly SourceFile[]): Recipe {
  const image = files.find(({ kind }) => kind === "image");
  const path = (name: string, param: string) => {
    if (image && name === IMAGES_FOLDER) return dirname(image.path);
    const isText = ({ kind, name }: SourceFile) => kind === "text" || name.endsWith(".safetensors"); // a graph's inputs
    const file = files.find((f) => isText(f) && (f.name === name || f.id === name));
    if (file) return file.path;
    const shown = JSON.stringify(name.slice(0, 100));
    throw new OatmillError(
      "invalid_recipe",
      `No uploaded .txt, .jsonl or .safetensors file is named ${shown}, and no images came for "${IMAGES_FOLDER}"`,
      param,
    );
  };
  const { calibration, evaluate, recover } = recipe;
  const calibrationText = calibration.text === "self"
    ? "self"
    : path(calibration.text, "recipe.calibration.text");
  const trainingText = (text: string | null) =>
    text === null || text === "self" ? text : path(text, "recipe.recover.text");
  const evaluateText = evaluate.text === null ? null : path(evaluate.text, "recipe.evaluate.text");
  return {
    ...recipe,
    calibration: { ...calibration, text: calibrationText },
    evaluate: { ...evaluate, text: evaluateText },
    recover: recover && { ...recover, text: trainingText(recover.text) },
  };
}

/** The given name, or the file's. */
export function readName(given: string | undefined, files: readonly SourceFile[]): string {
  const single = files.find((f) => f.kind === "gguf" || f.kind === "onnx" || f.kind === "archive");
  return modelName(given, single?.name);
}

export function modelName(given: string | undefined, file = ""): string {
  if (given !== undefined) {
    if (MODEL_ID.test(given)) return given;
    throw invalid(
      'Invalid value of "name": use up to 96 letters, digits, ".", "_", "-", the first a letter or digit',
      "name",
    );
  }
  const stem = file.replace(/\.(gguf|onnx|tar|tar\.gz|tgz|zip)$/, "").slice(0, 96);
  return MODEL_ID.test(stem) ? stem : `model-${crypto.randomUUID().slice(0, 8)}`;
}
