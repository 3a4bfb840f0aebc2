/** /v1/models: list, look at, upload and compress, download, delete. */
import { join } from "node:path";
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import { removeTree } from "../store/data_folder.ts";
import { uploadKind } from "../store/upload.ts";
import { jobBody, jobSchema } from "./compressions.ts";
import { errorResponse } from "./errors.ts";
import { hubBodySchema, readHubBody } from "./hub_source.ts";
import type { JobRunner, Submission } from "./jobs.ts";
import { adapterBody, modelBody, modelSchema } from "./model_body.ts";
import { parseReference, shown, versionId } from "./model_reference.ts";
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
import { resource, type Services } from "./services.ts";

const listSchema = z.object({ object: z.literal("list"), data: z.array(modelSchema) }).openapi("ModelList");
const deletedSchema = z.object({ id: z.string(), object: z.literal("model"), deleted: z.literal(true) });
const idParam = z.object({
  id: z.string().openapi({
    description:
      "A model's name, or one of its versions as `name@` and its first digits; `:` and an adapter's name " +
      "behind it: the model through that adapter",
  }),
});
/** Seconds that requests under way get when a model is deleted with `drain`, unless the request says another number. */
const DRAIN_SECONDS = 30;
const json = <T extends z.ZodType>(description: string, schema: T) => ({
  description,
  content: { "application/json": { schema } },
});

const listRoute = createRoute({
  method: "get",
  path: "/v1/models",
  summary: "The models there are, each followed by its adapters as `model:adapter`",
  responses: { 200: json("All models, oldest first", listSchema), default: errorResponse },
});
const getRoute = createRoute({
  method: "get",
  path: "/v1/models/{id}",
  summary: "One model, or one version of it",
  request: { params: idParam },
  responses: { 200: json("The model", modelSchema), default: errorResponse },
});
const deleteRoute = createRoute({
  method: "delete",
  path: "/v1/models/{id}",
  summary:
    "Delete a model with all its versions and adapters, one version that is not the current one, or one adapter",
  description:
    "409 while a compression makes the model or requests use it. With `drain` new requests are refused and " +
    "those under way may end: the answer comes when they have, or when `timeout` is over and the rest fail.",
  request: {
    params: idParam,
    query: z.object({
      drain: z.enum(["true", "false"]).optional(),
      timeout: z.coerce.number().min(0).max(600).default(DRAIN_SECONDS).openapi({ description: "Seconds" }),
    }),
  },
  responses: { 200: json("It is gone", deletedSchema), default: errorResponse },
});
const pointRoute = createRoute({
  method: "post",
  path: "/v1/models/{id}",
  summary: "Make another version of a model its current one",
  description:
    "Where the model is loaded, so is that version before the name stands for it. If it does not load, " +
    "nothing changes.",
  request: {
    params: idParam,
    body: {
      required: true,
      content: {
        "application/json": {
          schema: z.object({
            version: z.string().openapi({ description: "The version, or its first 8 or more digits" }),
          }),
        },
      },
    },
  },
  responses: { 200: json("The model", modelSchema), default: errorResponse },
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
  const { registry, data, jobs } = services;
  const body = (id: string) => {
    const model = registry.get(id), { name, version, adapter } = parseReference(id);
    const alone = modelBody(version === null ? name : versionId(model), model, registry.versions(name));
    return adapter === null ? alone : adapterBody(alone, registry.adapters.get(name, adapter));
  };
  const withAdapters = (id: string) => {
    const alone = body(id);
    return [alone, ...registry.adapters.list(id).map((adapter) => adapterBody(alone, adapter))];
  };
  const app = resource();
  app.openapi(
    listRoute,
    (c) =>
      c.json({ object: "list" as const, data: registry.list().flatMap(({ id }) => withAdapters(id)) }, 200),
  );
  app.openapi(getRoute, (c) => c.json(body(c.req.valid("param").id), 200));
  app.openapi(deleteRoute, async (c) => {
    const { id } = c.req.valid("param");
    const { drain, timeout } = c.req.valid("query");
    refusePromised(id, jobs);
    await registry.remove(id, drain === "true" ? { drainMs: timeout * 1000 } : {});
    return c.json({ id, object: "model" as const, deleted: true as const }, 200);
  });
  app.openapi(pointRoute, async (c) => {
    const { id } = c.req.valid("param");
    refuseParts(id);
    await registry.point(id, c.req.valid("json").version);
    return c.json(body(id), 200);
  });
  app.openapi(fileRoute, async (c) => {
    const { id, name } = c.req.valid("param");
    const { folder, info } = registry.get(id); // on disk, an open file outlives its version
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

/** For what is about a model as a whole. @throws {OatmillError} invalid_request */
export function refuseParts(id: string): void {
  const { version, adapter } = parseReference(id);
  if (version === null && adapter === null) return;
  const without = adapter === null ? "a version" : "an adapter";
  throw new OatmillError("invalid_request", `Name the model without ${without}, not ${shown(id)}`, "model");
}

/** What a job makes would come back after its model is deleted. */
function refusePromised(id: string, jobs: JobRunner): void {
  const { name, version, adapter } = parseReference(id);
  const [job] = version === null && adapter === null ? jobs.makingModel(name) : [];
  if (!job) return;
  const message = `Cannot delete ${
    shown(id)
  }: compression "${job.id}" makes it; cancel it, or wait for its end`;
  throw new OatmillError("conflict", message, "model");
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
