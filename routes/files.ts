/** /v1/files: OpenAI's Files. Content is kept once by its SHA-256, which a file also tells. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { OatmillError } from "../errors.ts";
import type { StoredFile } from "../store/file_store.ts";
import { removeTree } from "../store/data_folder.ts";
import { UploadQuota } from "../store/upload.ts";
import { byteRange } from "./byte_range.ts";
import { errorResponse, logUnexpected } from "./errors.ts";
import { modelFilePlace } from "./model_source.ts";
import { receiveMultipart } from "./multipart.ts";
import { resource, type Services } from "./services.ts";

/** OpenAI's, and what this server makes of files: models to compress, texts or images to calibrate with. */
export const PURPOSES = [
  "assistants",
  "batch",
  "fine-tune",
  "vision",
  "user_data",
  "evals",
  "model",
  "calibration",
] as const;
export const purposeSchema = z.enum(PURPOSES);

export const fileSchema = z.object({
  id: z.string(),
  object: z.literal("file"),
  bytes: z.int(),
  created_at: z.int(),
  filename: z.string(),
  purpose: purposeSchema,
  status: z.enum(["processed", "error"]).openapi({
    description: "error: the content is damaged on the server's disk; uploading it again mends it",
  }),
  status_details: z.string().optional(),
  sha256: z.string(),
}).openapi("File");
const listSchema = z.object({
  object: z.literal("list"),
  data: z.array(fileSchema),
  first_id: z.string().nullable(),
  last_id: z.string().nullable(),
  has_more: z.boolean(),
}).openapi("FileList");
const deletedSchema = z.object({ id: z.string(), object: z.literal("file"), deleted: z.literal(true) });
const idParam = z.object({ id: z.string() });
const json = <T extends z.ZodType>(description: string, schema: T) => ({
  description,
  content: { "application/json": { schema } },
});
const binary = (description: string) => ({
  description,
  content: { "application/octet-stream": { schema: z.string().openapi({ format: "binary" }) } },
});

const createFileRoute = createRoute({
  method: "post",
  path: "/v1/files",
  summary: "Upload a file in one request",
  request: {
    body: {
      required: true,
      content: {
        "multipart/form-data": {
          schema: z.object({ file: z.string().openapi({ format: "binary" }), purpose: purposeSchema }),
        },
      },
    },
  },
  responses: { 200: json("The file", fileSchema), default: errorResponse },
});
const listRoute = createRoute({
  method: "get",
  path: "/v1/files",
  summary: "The files there are, newest first",
  request: {
    query: z.object({
      limit: z.coerce.number().int().min(1).max(10_000).default(10_000),
      after: z.string().optional(),
      order: z.enum(["asc", "desc"]).default("desc"),
      purpose: z.string().optional(),
    }),
  },
  responses: { 200: json("A page of files", listSchema), default: errorResponse },
});
const getRoute = createRoute({
  method: "get",
  path: "/v1/files/{id}",
  summary: "One file",
  request: { params: idParam },
  responses: { 200: json("The file", fileSchema), default: errorResponse },
});
const contentRoute = createRoute({
  method: "get",
  path: "/v1/files/{id}/content",
  summary: "A file's bytes, or a range of them",
  request: { params: idParam },
  responses: {
    200: binary("All bytes"),
    206: binary("The bytes that the Range header asks for"),
    304: { description: "The caller has it already (if-none-match)" },
    default: errorResponse,
  },
});
const deleteRoute = createRoute({
  method: "delete",
  path: "/v1/files/{id}",
  summary: "Delete a file",
  request: { params: idParam },
  responses: { 200: json("It is gone", deletedSchema), default: errorResponse },
});

export function files(services: Services): OpenAPIHono {
  const { storage: { files } } = services;
  const app = resource();
  app.openapi(listRoute, (c) => {
    const { limit, ...query } = c.req.valid("query");
    const found = files.list({ ...query, limit: limit + 1 });
    const data = found.slice(0, limit).map(fileBody);
    const [first_id, last_id] = [data.at(0)?.id ?? null, data.at(-1)?.id ?? null];
    return c.json({ object: "list" as const, data, first_id, last_id, has_more: found.length > limit }, 200);
  });
  app.openapi(getRoute, (c) => c.json(fileBody(files.get(c.req.valid("param").id)), 200));
  // deno-lint-ignore no-explicit-any -- the route's type knows no raw Response
  app.openapi(contentRoute, (c) => content(c, services) as any);
  app.openapi(deleteRoute, (c) => {
    const { id } = c.req.valid("param");
    files.remove(id);
    return c.json({ id, object: "file" as const, deleted: true as const }, 200);
  });
  // Not app.openapi(): its validator would read the multipart body into memory.
  app.openAPIRegistry.registerPath(createFileRoute);
  app.post("/v1/files", async (c) => c.json(fileBody(await receive(c.req.raw, services)), 200));
  return app;
}

export function fileBody(file: StoredFile): z.infer<typeof fileSchema> {
  return {
    id: file.id,
    object: "file",
    bytes: file.bytes,
    created_at: Math.floor(file.createdMs / 1000),
    filename: file.filename,
    purpose: file.purpose as z.infer<typeof purposeSchema>,
    ...file.damage === null
      ? { status: "processed" as const }
      : { status: "error" as const, status_details: file.damage },
    sha256: file.sha256,
  };
}

/** Room for what a form has besides the file. */
const FORM_BYTES = 2 ** 20;

async function receive(request: Request, { data, limits, storage }: Services): Promise<StoredFile> {
  const announced = Math.max(0, Number(request.headers.get("content-length") ?? 0) - FORM_BYTES);
  new UploadQuota(limits.uploadBytes, "file").take(announced); // too large for any disk or quota
  using reservation = await storage.quota.reserve(announced);
  const folder = await data.temporary();
  try {
    const { fields, files } = await receiveMultipart(request, {
      folder,
      fields: ["purpose", "expires_after[anchor]", "expires_after[seconds]"],
      fileField: "file",
      maxBytes: limits.uploadBytes,
      maxFiles: 1,
      quota: reservation,
      place: () => "content", // its name is the row's, and no name on the disk
    });
    const purpose = purposeSchema.safeParse(fields.get("purpose"));
    if (!purpose.success) throw invalid(`Send "purpose": one of ${PURPOSES.join(", ")}`, "purpose");
    if ([...fields.keys()].some((name) => name.startsWith("expires_after"))) refuseExpiry();
    if (files.length === 0) throw invalid('Send the file in the field "file"', "file");
    const [{ name: filename, ...content }] = files;
    checkFilename(filename, { purpose: purpose.data, param: "file" });
    return await storage.files.add(content, { filename, purpose: purpose.data });
  } finally {
    await removeTree(folder);
  }
}

const MAX_FILENAME = 255;

/**
 * A name is a label of a row; only one that becomes part of a model must be one that models have.
 * @throws {OatmillError} invalid_request, unsupported_format
 */
export function checkFilename(
  name: string,
  { purpose, param }: { readonly purpose: string; readonly param: string },
): void {
  // deno-lint-ignore no-control-regex -- these are what is refused
  if (name === "" || !name.isWellFormed() || name.length > MAX_FILENAME || /[\x00-\x1f\x7f]/.test(name)) {
    throw invalid(
      `Give the file a name of 1 to ${MAX_FILENAME} characters, none of them a control character`,
      param,
    );
  }
  if (purpose === "model") modelFilePlace(name);
}

export function refuseExpiry(): never {
  throw invalid(
    "Files do not expire here: leave out expires_after, and delete what is not needed",
    "expires_after",
  );
}

const invalid = (message: string, param: string) => new OatmillError("invalid_request", message, param);

async function content(c: Context, { storage: { files } }: Services): Promise<Response> {
  const file = files.get(c.req.param("id")!), etag = `"${file.sha256}"`;
  const headers: Record<string, string> = {
    etag,
    "accept-ranges": "bytes",
    "content-type": "application/octet-stream",
    "content-disposition": `attachment; filename*=UTF-8''${encoded(file.filename)}`,
  };
  if (c.req.header("if-none-match")?.split(/\s*,\s*/).includes(etag)) return c.body(null, 304, { etag });
  const ifRange = c.req.header("if-range");
  const wanted = ifRange === undefined || ifRange === etag ? c.req.header("range") : undefined;
  const range = byteRange(wanted, file.bytes) ?? undefined;
  const body = await started(files.read(file.id, range));
  const length = { "content-length": String(range ? range.end - range.start : file.bytes) };
  if (!range) return c.body(body, 200, { ...headers, ...length });
  const shown = `bytes ${range.start}-${range.end - 1}/${file.bytes}`;
  return c.body(body, 206, { ...headers, ...length, "content-range": shown });
}

/** RFC 8187: a name of any characters in a header. */
const encoded = (name: string) =>
  encodeURIComponent(name).replace(/['()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);

/**
 * A stream of the chunks, once the first is there: what fails before it is an answer of its own. What fails later cuts the
 * connection short of the announced length.
 */
async function started(
  chunks: AsyncGenerator<Uint8Array<ArrayBuffer>>,
): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
  let next = await chunks.next();
  return new ReadableStream({
    async pull(controller) {
      if (next.done) return controller.close();
      controller.enqueue(next.value);
      try {
        next = await chunks.next();
      } catch (error) {
        logUnexpected(error, "/v1/files/{id}/content");
        controller.error(error);
      }
    },
    async cancel() {
      await chunks.return(undefined);
    },
  }, { highWaterMark: 0 });
}
