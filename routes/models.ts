/** /v1/models: list, look at, upload and compress, download, delete. */
import { dirname, join } from "node:path";
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import { type Recipe, recipeSchema } from "../models/recipe.ts";
import { removeTree } from "../store/data_folder.ts";
import type { StoredModel } from "../store/model_store.ts";
import { jobBody, jobSchema } from "./compressions.ts";
import { errorResponse, invalidInput } from "./errors.ts";
import { hubBodySchema, readHubBody } from "./hub_source.ts";
import type { Submission } from "./jobs.ts";
import { IMAGES_FOLDER, receiveMultipart, type Upload, type UploadedFile } from "./multipart.ts";
import type { ModelInfo } from "./registry.ts";
import { resource, type Services } from "./services.ts";

/** A model's id: safe in a URL and a log line. */
const MODEL_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$/;

const modelSchema = z.object({
  id: z.string(),
  object: z.literal("model"),
  created: z.int(),
  owned_by: z.string(),
  architecture: z.string(),
  context_length: z.int(),
  method: z.string(),
  rate: z.number(),
  values: z.string(),
  sparsity: z.number().openapi({ description: "Share of zeros in the sparse parts" }),
  bytes: z.int(),
  dense_bytes: z.int(),
  perplexity: z.object({ dense: z.number(), compressed: z.number(), tokens: z.int(), text: z.string() })
    .nullable(),
  files: z.array(z.object({ name: z.string(), bytes: z.int(), sha256: z.string().nullable() })),
}).openapi("Model");
const listSchema = z.object({ object: z.literal("list"), data: z.array(modelSchema) }).openapi("ModelList");
const deletedSchema = z.object({ id: z.string(), object: z.literal("model"), deleted: z.literal(true) });
const idParam = z.object({ id: z.string() });
const json = <T extends z.ZodType>(description: string, schema: T) => ({
  description,
  content: { "application/json": { schema } },
});

const listRoute = createRoute({
  method: "get",
  path: "/v1/models",
  summary: "The models there are",
  responses: { 200: json("All models, oldest first", listSchema), default: errorResponse },
});
const getRoute = createRoute({
  method: "get",
  path: "/v1/models/{id}",
  summary: "One model",
  request: { params: idParam },
  responses: { 200: json("The model", modelSchema), default: errorResponse },
});
const deleteRoute = createRoute({
  method: "delete",
  path: "/v1/models/{id}",
  summary: "Delete a model and its files",
  request: { params: idParam },
  responses: { 200: json("It is gone", deletedSchema), default: errorResponse },
});
const fileRoute = createRoute({
  method: "get",
  path: "/v1/models/{id}/files/{name}",
  summary: "Download a file of a compressed model",
  request: { params: idParam.extend({ name: z.string() }) },
  responses: {
    200: {
      description: "The file",
      content: { "application/octet-stream": { schema: z.string().openapi({ format: "binary" }) } },
    },
    default: errorResponse,
  },
});
const uploadRoute = createRoute({
  method: "post",
  path: "/v1/models",
  summary: "Upload a model, or name one of a hub, and compress it",
  description:
    "Files of a Hugging Face folder (config.json, tokenizer.json, *.safetensors), one .gguf file, one .onnx file (with its " +
    ".onnx.data, config.json, preprocessor_config.json, tokenizer.json), or one " +
    "archive (.tar, .tar.gz, .tgz, .zip) with either. Text for calibration or evaluation (.txt, .jsonl) may come along, which " +
    'the recipe names, or images (.png, .jpg, .webp), which are "images" in the recipe. ' +
    "As JSON: a model that the server pulls from Hugging Face or a mirror of it.",
  request: {
    body: {
      required: true,
      content: {
        "multipart/form-data": {
          schema: z.object({
            files: z.array(z.string().openapi({ format: "binary" })),
            recipe: z.string().optional().openapi({ description: "The recipe as JSON; default {}" }),
            name: z.string().optional().openapi({ description: "The model's id; default: the file's name" }),
          }),
        },
        "application/json": { schema: hubBodySchema },
      },
    },
  },
  responses: { 202: json("The compression job", jobSchema), default: errorResponse },
});

export function models(services: Services): OpenAPIHono {
  const { registry, data } = services;
  const app = resource();
  app.openapi(
    listRoute,
    (c) => c.json({ object: "list" as const, data: registry.list().map(modelBody) }, 200),
  );
  app.openapi(getRoute, (c) => c.json(modelBody(registry.get(c.req.valid("param").id)), 200));
  app.openapi(deleteRoute, async (c) => {
    const { id } = c.req.valid("param");
    await registry.remove(id);
    return c.json({ id, object: "model" as const, deleted: true as const }, 200);
  });
  app.openapi(fileRoute, async (c) => {
    const { id, name } = c.req.valid("param");
    const { folder, info } = registry.get(id);
    const known = Object.hasOwn(info.files, name) ? info.files[name] : null;
    if (!known && name !== "oatmill.json") {
      throw new OatmillError(
        "not_found",
        `Model "${id}" has no file ${JSON.stringify(name.slice(0, 100))}`,
        "name",
      );
    }
    const file = await Deno.open(join(data.modelPath(folder), name));
    const headers: Record<string, string> = {
      "content-type": name.endsWith(".json") ? "application/json" : "application/octet-stream",
      "content-length": String((await file.stat()).size),
      "content-disposition": `attachment; filename="${name}"`,
    };
    if (known) headers.etag = `"${known.sha256}"`;
    return c.body(file.readable, 200, headers);
  });
  // Not app.openapi(): its validator would read the multipart body into memory.
  app.openAPIRegistry.registerPath(uploadRoute);
  app.post("/v1/models", async (c) => {
    const isJson = /^application\/json\b/i.test(c.req.header("content-type") ?? "");
    const job = await (isJson ? pullAndCompress : upload)(c.req.raw, services);
    return c.json(jobBody(job), 202);
  });
  return app;
}

function modelBody({ id, createdMs, info }: StoredModel & { info: ModelInfo }): z.infer<typeof modelSchema> {
  const files = Object.entries(info.files).map(([name, f]) => ({ name, bytes: f.bytes, sha256: f.sha256 }));
  return {
    id,
    object: "model",
    created: Math.floor(createdMs / 1000),
    owned_by: "oatmill",
    architecture: info.architecture,
    context_length: info.contextLength,
    method: info.method,
    rate: info.rate,
    values: info.values,
    sparsity: info.sparsity,
    bytes: info.bytes,
    dense_bytes: info.denseBytes,
    perplexity: info.perplexity,
    files,
  };
}

/** Takes the upload in, checks what can be checked at once, and queues the job. */
async function upload(request: Request, { data, jobs, limits }: Services) {
  const folder = await data.temporary();
  try {
    const received = await receiveMultipart(request, {
      folder,
      fields: ["recipe", "name"],
      fileField: "files",
      maxBytes: limits.uploadBytes,
      maxFiles: limits.uploadFiles,
    });
    const model = readName(received);
    jobs.checkName(model);
    const recipe = readRecipe(parseRecipe(received));
    const task: Submission["task"] = {
      ...readSource(received, folder),
      recipe: withPaths(recipe, received),
      maxBytes: limits.uploadBytes,
      maxFiles: limits.uploadFiles,
    };
    const files = received.files.map(({ name, bytes, sha256 }) => ({ name, bytes, sha256 }));
    return jobs.submit({ model, recipe, files, folder, task });
  } catch (error) {
    await removeTree(folder);
    throw error;
  }
}

/** Queues a job that pulls the model first: what a hub has can be large and slow. */
async function pullAndCompress(request: Request, { data, jobs, limits, hub: access }: Services) {
  const { source, name, recipe: given = {} } = await readHubBody(request, limits.jsonBytes);
  const { hub: repo, revision, file } = source;
  const model = modelName(name, file ?? repo.split("/")[1]);
  jobs.checkName(model);
  const recipe = withPaths(readRecipe(given), { files: [] });
  const folder = await data.temporary();
  try {
    const task: Submission["task"] = {
      archive: null,
      hub: { repo, revision, file, access },
      source: join(folder, "pulled"),
      recipe,
      maxBytes: limits.uploadBytes,
      maxFiles: limits.uploadFiles,
    };
    return jobs.submit({ model, recipe, files: [], folder, task });
  } catch (error) {
    await removeTree(folder);
    throw error;
  }
}

const invalid = (message: string, param: string) => new OatmillError("invalid_request", message, param);

/** What the files are together: one archive, one GGUF file, one graph with what belongs to it, or a folder. */
function readSource(received: Upload, folder: string): { archive: string | null; source: string } {
  const of = (kind: UploadedFile["kind"]) => received.files.filter((f) => f.kind === kind);
  const [archives, ggufs, graphs, parts] = [of("archive"), of("gguf"), of("onnx"), of("folder")];
  // A graph's config.json and tokenizer lie beside it.
  const folders = graphs.length > 0 ? 0 : Math.min(1, parts.length + of("onnx_data").length);
  if (archives.length + ggufs.length + graphs.length + folders !== 1) {
    const what = received.files.length === 0
      ? "no files"
      : received.files.map((f) => f.name).join(", ").slice(0, 500);
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

function parseRecipe(received: Upload): unknown {
  try {
    return JSON.parse(received.fields.get("recipe") ?? "{}");
  } catch (error) {
    throw new OatmillError(
      "invalid_recipe",
      `Field "recipe" is not JSON: ${(error as Error).message}`,
      "recipe",
    );
  }
}

function readRecipe(value: unknown): Recipe {
  const parsed = recipeSchema.safeParse(value);
  if (!parsed.success) throw invalidInput(parsed.error, { code: "invalid_recipe", within: "recipe" });
  return parsed.data;
}

/** What a recipe names must have come with the upload, a text or all images: it never names a path on the server. */
function withPaths(recipe: Recipe, received: Pick<Upload, "files">): Recipe {
  const image = received.files.find(({ kind }) => kind === "image");
  const path = (name: string, param: string) => {
    if (image && name === IMAGES_FOLDER) return dirname(image.path);
    const isText = ({ kind, name }: UploadedFile) => kind === "text" || name.endsWith(".safetensors"); // a graph's inputs
    const file = received.files.find((f) => isText(f) && f.name === name);
    if (file) return file.path;
    const shown = JSON.stringify(name.slice(0, 100));
    throw new OatmillError(
      "invalid_recipe",
      `No uploaded .txt, .jsonl or .safetensors file is named ${shown}, and no images came for "${IMAGES_FOLDER}"`,
      param,
    );
  };
  const { calibration, evaluate } = recipe;
  const calibrationText = calibration.text === "self"
    ? "self"
    : path(calibration.text, "recipe.calibration.text");
  const evaluateText = evaluate.text === null ? null : path(evaluate.text, "recipe.evaluate.text");
  return {
    ...recipe,
    calibration: { ...calibration, text: calibrationText },
    evaluate: { ...evaluate, text: evaluateText },
  };
}

/** The given name, or the file's. */
function readName(received: Upload): string {
  const single = received.files.find((f) => f.kind === "gguf" || f.kind === "onnx" || f.kind === "archive");
  return modelName(received.fields.get("name"), single?.name);
}

function modelName(given: string | undefined, file = ""): string {
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
