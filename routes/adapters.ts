/** /v1/models/{id}/adapters: LoRA adapters of a model, as PEFT writes them; requests name them `model:adapter`. */
import { join } from "node:path";
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import { readHeader } from "../models/formats/artifact.ts";
import { ADAPTER_CONFIG } from "../models/peft/adapter_config.ts";
import { isPickleName } from "../models/formats/pickle.ts";
import {
  ADAPTER_WEIGHTS,
  adapterPickleRefused,
  MAX_ADAPTER_VALUES,
  readAdapter,
} from "../models/peft/read_adapter.ts";
import type { ModelSpec } from "../models/spec.ts";
import { removeTree } from "../store/data_folder.ts";
import type { Adapter, AdapterInfo } from "./adapter_registry.ts";
import { errorResponse, invalidInput } from "./errors.ts";
import { readJson } from "./json_body.ts";
import { adapterBody, modelBody, modelSchema } from "./model_body.ts";
import { adapterId } from "./model_reference.ts";
import { refuseParts } from "./models.ts";
import { receiveMultipart } from "./multipart.ts";
import { resource, type Services } from "./services.ts";

/** As model ids are: safe in a URL and a log line. */
const ADAPTER_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
/** As float32, and the config. */
const MAX_ADAPTER_BYTES = 4 * MAX_ADAPTER_VALUES + 2 ** 26;

const jsonSchema = z.object({
  name: z.string(),
  files: z.array(z.string()).min(1).max(8).openapi({
    description: `Ids of /v1/files: ${ADAPTER_CONFIG} and ${ADAPTER_WEIGHTS}`,
  }),
}).openapi("AdapterRequest");
const listSchema = z.object({ object: z.literal("list"), data: z.array(modelSchema) }).openapi("AdapterList");
const deletedSchema = z.object({ id: z.string(), object: z.literal("model"), deleted: z.literal(true) });
const idParam = z.object({ id: z.string().openapi({ description: "A model's name" }) });
const json = <T extends z.ZodType>(description: string, schema: T) => ({
  description,
  content: { "application/json": { schema } },
});

const addRoute = createRoute({
  method: "post",
  path: "/v1/models/{id}/adapters",
  summary: "Add a LoRA adapter to a model",
  description:
    `The two files of a PEFT folder, ${ADAPTER_CONFIG} and ${ADAPTER_WEIGHTS}. Requests name it \`model:adapter\`, or ` +
    "`model@version:adapter`; those of several adapters and of none run in the same steps. It belongs to the model's name: a " +
    "version that it does not fit refuses it.",
  request: {
    params: idParam,
    body: {
      required: true,
      content: {
        "multipart/form-data": {
          schema: z.object({
            files: z.array(z.string().openapi({ format: "binary" })),
            name: z.string().openapi({ description: 'Up to 64 letters, digits, ".", "_", "-"' }),
          }),
        },
        "application/json": { schema: jsonSchema },
      },
    },
  },
  responses: { 200: json("The model through the adapter", modelSchema), default: errorResponse },
});
const listRoute = createRoute({
  method: "get",
  path: "/v1/models/{id}/adapters",
  summary: "The LoRA adapters of a model",
  request: { params: idParam },
  responses: { 200: json("Oldest first", listSchema), default: errorResponse },
});
const deleteRoute = createRoute({
  method: "delete",
  path: "/v1/models/{id}/adapters/{name}",
  summary: "Delete a LoRA adapter of a model",
  description: "Requests under way end with it.",
  request: { params: idParam.extend({ name: z.string() }) },
  responses: { 200: json("It is gone", deletedSchema), default: errorResponse },
});

export function adapters(services: Services): OpenAPIHono {
  const { registry } = services;
  const body = (adapter: Adapter) => {
    const { model } = adapter;
    return adapterBody(modelBody(model, registry.get(model), registry.versions(model)), adapter);
  };
  const modelOf = (id: string): string => {
    refuseParts(id);
    return registry.get(id).id;
  };
  const app = resource();
  app.openapi(listRoute, (c) => {
    const data = registry.adapters.list(modelOf(c.req.valid("param").id)).map(body);
    return c.json({ object: "list" as const, data }, 200);
  });
  app.openapi(deleteRoute, async (c) => {
    const { id, name } = c.req.valid("param");
    await registry.adapters.remove(modelOf(id), name);
    return c.json({ id: adapterId(id, name), object: "model" as const, deleted: true as const }, 200);
  });
  // Not app.openapi(): its validator would read the multipart body into memory.
  app.openAPIRegistry.registerPath(addRoute);
  app.post("/v1/models/:id/adapters", async (c) => {
    const model = modelOf(c.req.param("id"));
    return c.json(body(await receiveAdapter(model, c.req.raw, services)), 200);
  });
  return app;
}

async function receiveAdapter(model: string, request: Request, services: Services): Promise<Adapter> {
  const folder = await services.data.temporary();
  try {
    const isJson = /^application\/json\b/i.test(request.headers.get("content-type") ?? "");
    const { name, files } = await (isJson ? linkFiles : storeFiles)(request, folder, services);
    checkName(name);
    services.registry.adapters.refuseTaken(model, name);
    const info = await checkAdapter(services, { model, path: folder, files });
    return await services.registry.adapters.add({ model, name, path: folder, info });
  } finally {
    await removeTree(folder);
  }
}

interface ReceivedFile {
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
}
interface Received {
  readonly name: string;
  readonly files: readonly ReceivedFile[];
}

async function storeFiles(request: Request, folder: string, { limits }: Services): Promise<Received> {
  const { fields, files } = await receiveMultipart(request, {
    folder,
    fields: ["name"],
    fileField: "files",
    maxBytes: Math.min(limits.uploadBytes, MAX_ADAPTER_BYTES),
    maxFiles: 8,
    place: adapterFile,
  });
  return { name: fields.get("name") ?? "", files };
}

async function linkFiles(request: Request, folder: string, { limits, storage }: Services): Promise<Received> {
  const parsed = jsonSchema.safeParse(await readJson(request, limits.jsonBytes));
  if (!parsed.success) throw invalidInput(parsed.error);
  const { name, files: ids } = parsed.data, files: ReceivedFile[] = [];
  for (const id of ids) {
    const { filename } = storage.files.get(id), place = adapterFile(filename);
    if (files.some((file) => file.name === place)) throw invalid(`File "${place}" is there twice`, "files");
    const { bytes, sha256 } = await storage.files.link(id, join(folder, place));
    files.push({ name: place, bytes, sha256 });
  }
  return { name, files };
}

/** @throws {OatmillError} unsupported_format, invalid_request */
function adapterFile(name: string): string {
  if (name === ADAPTER_CONFIG || name === ADAPTER_WEIGHTS) return name;
  if (isPickleName(name)) throw adapterPickleRefused(name);
  throw invalid(
    `Cannot take the file ${
      JSON.stringify(name.slice(0, 100))
    }: an adapter is ${ADAPTER_CONFIG} and ${ADAPTER_WEIGHTS}`,
    "files",
  );
}

/** @throws {OatmillError} invalid_request */
export function checkName(name: string): void {
  if (ADAPTER_NAME.test(name)) return;
  throw invalid(
    'Invalid value of "name": use up to 64 letters, digits, ".", "_", "-", the first a letter or digit',
    "name",
  );
}

/**
 * Checks an adapter against its model's current version.
 * @param options.path its folder
 * @throws {OatmillError} what reading it throws; invalid_adapter for models and layers that are not served with adapters
 */
export async function checkAdapter(
  { data, registry }: Pick<Services, "data" | "registry">,
  { model, path, files }: {
    readonly model: string;
    readonly path: string;
    readonly files: readonly ReceivedFile[];
  },
): Promise<AdapterInfo> {
  const { spec } = await readHeader(data.modelPath(registry.get(model).folder)) as { spec?: ModelSpec };
  if (!spec?.attention.causal) {
    throw new OatmillError(
      "invalid_adapter",
      `Cannot add an adapter to "${model}": adapters are served on decoders alone`,
      "model",
    );
  }
  const { layers, rank, parameters, baseModel } = await readAdapter(path, { spec, name: model });
  if ([...layers.keys()].some((layer) => layer.includes(".experts."))) {
    throw new OatmillError(
      "invalid_adapter",
      "Cannot add an adapter of experts' layers: those are not served apart; merge it into the model (oatmill merge)",
      "adapter",
    );
  }
  const { sha256 = "" } = files.find((file) => file.name === ADAPTER_WEIGHTS) ?? {};
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  return { baseModel, rank, layers: layers.size, parameters, bytes, sha256 };
}

const invalid = (message: string, param: string) => new OatmillError("invalid_request", message, param);
