/** POST /v1/compressions: a job of files that are stored already. They get their names back, and no byte is copied. */
import { dirname, join } from "node:path";
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import { type Recipe, recipeSchema } from "../models/recipe.ts";
import { removeTree } from "../store/data_folder.ts";
import type { StoredFile } from "../store/file_store.ts";
import type { Job, JobFile } from "../store/job_store.ts";
import { uploadKind } from "../store/upload.ts";
import { invalidInput } from "./errors.ts";
import type { Submission } from "./jobs.ts";
import {
  modelFilePlace,
  readName,
  readRecipe,
  readSource,
  type SourceFile,
  withPaths,
} from "./model_source.ts";
import type { Services } from "./services.ts";

export const compressionBodySchema = z.object({
  files: z.array(z.string()).min(1).openapi({ description: "Ids of /v1/files" }),
  name: z.string().optional().openapi({ description: "The model's id; default: the file's name" }),
  model: z.string().optional().openapi({ description: "The same as name" }),
  recipe: recipeSchema.optional(),
}).openapi("CompressionRequest");
/** The recipe is read as that of an upload is. */
const bodySchema = compressionBodySchema.omit({ recipe: true }).extend({ recipe: z.unknown().optional() });

/** Other names are those of files that came along. */
const FILE_ID = /^file-[0-9a-f]{32}$/;

/** A file at its place in the job's folder; texts that only the recipe names go by their ids. */
interface LinkedFile extends SourceFile {
  readonly id: string;
}

/** @throws {OatmillError} invalid_request, invalid_recipe, unsupported_format, not_found, conflict, damaged_file, storage_failed */
export async function submitFiles(value: unknown, services: Services): Promise<Job> {
  const { data, jobs, limits } = services;
  const parsed = bodySchema.safeParse(value);
  if (!parsed.success) throw invalidInput(parsed.error);
  const { name = parsed.data.model, files: ids, recipe: given = {} } = parsed.data;
  if (ids.length > limits.uploadFiles) {
    throw new OatmillError("too_large", `Cannot take more than ${limits.uploadFiles} files`, "files");
  }
  const recipe = readRecipe(given);
  const folder = await data.temporary();
  try {
    const parts = placed(ids, folder, services);
    const chosen = [...parts, ...recipeTexts(recipe, { parts, folder, services })];
    const source = readSource(parts, folder);
    const task: Submission["task"] = {
      ...source,
      recipe: withPaths(recipe, chosen),
      maxBytes: limits.uploadBytes,
      maxFiles: limits.uploadFiles,
    };
    const model = readName(name, chosen);
    const files = await link(chosen, services);
    return jobs.submit({ model, recipe, files, folder, task });
  } catch (error) {
    await removeTree(folder);
    throw error;
  }
}

function placed(ids: readonly string[], folder: string, { storage }: Services): LinkedFile[] {
  const names = new Set<string>();
  return ids.map((id, i) => {
    const { filename: name } = known(id, `files.${i}`, storage.files.rows.get(id));
    const path = join(folder, modelFilePlace(name));
    if (names.has(name)) throw invalid(`File "${name}" is there twice`, `files.${i}`);
    names.add(name);
    return { id, name, kind: uploadKind(name), path };
  });
}

/** What the recipe names by id beyond the model's files. */
function recipeTexts(
  { calibration, evaluate, recover }: Recipe,
  { parts, folder, services }: {
    readonly parts: readonly LinkedFile[];
    readonly folder: string;
    readonly services: Services;
  },
): LinkedFile[] {
  const named = [
    [calibration.text, "recipe.calibration.text"],
    [evaluate.text, "recipe.evaluate.text"],
    [recover?.text ?? null, "recipe.recover.text"],
  ] as const;
  const texts = new Map<string, LinkedFile>();
  for (const [id, param] of named) {
    if (id === null || !FILE_ID.test(id) || parts.some((file) => file.id === id)) continue;
    const { filename } = known(id, param, services.storage.files.rows.get(id));
    const ending = /\.(txt|jsonl)$/.exec(filename)?.[0];
    if (ending === undefined) throw invalid(`File "${filename}" is no .txt or .jsonl file`, param);
    const name = id + ending;
    if (parts.some((file) => file.name === name)) throw invalid(`File "${name}" is there twice`, param);
    texts.set(id, { id, name, kind: "text", path: join(folder, name) });
  }
  return [...texts.values()];
}

async function link(chosen: readonly LinkedFile[], { storage: { files } }: Services): Promise<JobFile[]> {
  const linked: JobFile[] = [];
  for (const { id, path } of chosen) {
    await Deno.mkdir(dirname(path), { recursive: true });
    const { filename: name, bytes, sha256 } = await files.link(id, path);
    linked.push({ name, bytes, sha256, id });
  }
  return linked;
}

function known(id: string, param: string, file: StoredFile | null): StoredFile {
  if (file) return file;
  throw new OatmillError("not_found", `File ${JSON.stringify(id.slice(0, 100))} does not exist`, param);
}

const invalid = (message: string, param: string) => new OatmillError("invalid_request", message, param);
