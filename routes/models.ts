/** /v1/models: list, look at, upload and compress, download, delete. */
import { join } from "node:path";
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import { removeTree } from "../store/data_folder.ts";
import type { StoredModel } from "../store/model_store.ts";
import { uploadKind } from "../store/upload.ts";
import { jobBody, jobSchema } from "./compressions.ts";
import { errorResponse } from "./errors.ts";
import { hubBodySchema, readHubBody } from "./hub_source.ts";
import type { Submission } from "./jobs.ts";
import {
  modelFilePlace,
  modelName,
  parseRecipe,
  readName,
  readRecipe,
  readSource,
  withPaths,
} from "./model_source.ts";
import { receiveMultipart } from "./multipart.ts";
import type { ModelInfo } from "./registry.ts";
import { resource, type Services } from "./services.ts";

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
      place: modelFilePlace,
    });
    const files = received.files.map((file) => ({ ...file, kind: uploadKind(file.name) }));
    const model = readName(received.fields.get("name"), files);
    jobs.checkName(model);
    const recipe = readRecipe(parseRecipe(received.fields.get("recipe")));
    const task: Submission["task"] = {
      ...readSource(files, folder),
      recipe: withPaths(recipe, files),
      maxBytes: limits.uploadBytes,
      maxFiles: limits.uploadFiles,
    };
    const shown = files.map(({ name, bytes, sha256 }) => ({ name, bytes, sha256 }));
    return jobs.submit({ model, recipe, files: shown, folder, task });
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
  const recipe = withPaths(readRecipe(given), []);
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
