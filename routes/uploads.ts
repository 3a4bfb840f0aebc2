/** /v1/uploads: OpenAI's Uploads, a file in parts of up to 64 MiB; what is stored already can be asked for, to go on. */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import { OatmillError } from "../errors.ts";
import { removeTree } from "../store/data_folder.ts";
import { MOST_PARTS, type Upload } from "../store/upload_storage.ts";
import type { StoredPart } from "../store/upload_store.ts";
import { errorResponse } from "./errors.ts";
import { checkFilename, fileBody, fileSchema, purposeSchema, refuseExpiry } from "./files.ts";
import { receiveMultipart } from "./multipart.ts";
import { resource, type Services } from "./services.ts";

/** OpenAI's limit. */
export const MAX_PART_BYTES = 64 * 2 ** 20;

export const partSchema = z.object({
  id: z.string(),
  object: z.literal("upload.part"),
  created_at: z.int(),
  upload_id: z.string(),
  bytes: z.int(),
  sha256: z.string(),
}).openapi("UploadPart");
export const uploadSchema = z.object({
  id: z.string(),
  object: z.literal("upload"),
  bytes: z.int(),
  created_at: z.int(),
  expires_at: z.int().openapi({ description: "Every part moves it on to an hour later" }),
  filename: z.string(),
  purpose: purposeSchema,
  status: z.enum(["pending", "completed", "cancelled", "expired"]),
  file: fileSchema.nullable(),
}).openapi("Upload");
const withPartsSchema = uploadSchema.extend({ parts: z.array(partSchema) }).openapi("UploadWithParts");
const digest = (length: number) =>
  z.string().regex(new RegExp(`^[0-9a-fA-F]{${length}}$`), `must be ${length} hexadecimal digits`);

const idParam = z.object({ id: z.string() });
const json = <T extends z.ZodType>(description: string, schema: T) => ({
  description,
  content: { "application/json": { schema } },
});
const body = <T extends z.ZodType>(schema: T) => ({
  required: true,
  content: { "application/json": { schema } },
});

const createUploadRoute = createRoute({
  method: "post",
  path: "/v1/uploads",
  summary: "Begin a file that comes in parts",
  request: {
    body: body(z.object({
      filename: z.string(),
      purpose: purposeSchema,
      bytes: z.int().min(1),
      mime_type: z.string(),
      expires_after: z.unknown().optional().openapi({ description: "Refused: files do not expire here" }),
    })),
  },
  responses: { 200: json("The upload", uploadSchema), default: errorResponse },
});
const getRoute = createRoute({
  method: "get",
  path: "/v1/uploads/{id}",
  summary: "An upload, with the parts that are stored already",
  request: { params: idParam },
  responses: { 200: json("The upload", withPartsSchema), default: errorResponse },
});
const partRoute = createRoute({
  method: "post",
  path: "/v1/uploads/{id}/parts",
  summary: "Add a part, in any order; the same bytes again are the same part",
  request: {
    params: idParam,
    body: {
      required: true,
      content: {
        "multipart/form-data": { schema: z.object({ data: z.string().openapi({ format: "binary" }) }) },
      },
    },
  },
  responses: { 200: json("The part", partSchema), default: errorResponse },
});
const completeRoute = createRoute({
  method: "post",
  path: "/v1/uploads/{id}/complete",
  summary: "Make the file of the parts, in the order given",
  request: {
    params: idParam,
    body: body(z.object({
      part_ids: z.array(z.string()).min(1).max(MOST_PARTS),
      md5: digest(32).optional().openapi({ description: "Of the whole file" }),
      sha256: digest(64).optional().openapi({ description: "Of the whole file" }),
    })),
  },
  responses: { 200: json("The upload, with its file", uploadSchema), default: errorResponse },
});
const cancelRoute = createRoute({
  method: "post",
  path: "/v1/uploads/{id}/cancel",
  summary: "Drop an upload and its parts",
  request: { params: idParam },
  responses: { 200: json("The cancelled upload", uploadSchema), default: errorResponse },
});

export function uploads(services: Services): OpenAPIHono {
  const { storage: { uploads }, limits } = services;
  const app = resource();
  app.openapi(createUploadRoute, async (c) => {
    const { filename, purpose, bytes, expires_after } = c.req.valid("json");
    if (expires_after !== undefined && expires_after !== null) refuseExpiry();
    checkFilename(filename, { purpose, param: "filename" });
    if (bytes > limits.uploadBytes) {
      throw new OatmillError("too_large", `Upload exceeds the allowed ${limits.uploadBytes} bytes`, "bytes");
    }
    return c.json(uploadBody(await uploads.create({ filename, purpose, bytes })), 200);
  });
  app.openapi(getRoute, (c) => {
    const { id } = c.req.valid("param");
    return c.json({ ...uploadBody(uploads.get(id)), parts: uploads.parts(id).map(partBody) }, 200);
  });
  app.openapi(completeRoute, async (c) => {
    const { part_ids: partIds, md5, sha256 } = c.req.valid("json");
    return c.json(uploadBody(await uploads.complete(c.req.valid("param").id, { partIds, md5, sha256 })), 200);
  });
  app.openapi(
    cancelRoute,
    async (c) => c.json(uploadBody(await uploads.cancel(c.req.valid("param").id)), 200),
  );
  // Not app.openapi(): its validator would read the multipart body into memory.
  app.openAPIRegistry.registerPath(partRoute);
  app.post("/v1/uploads/:id/parts", async (c) => {
    return c.json(partBody(await receivePart(c.req.raw, c.req.param("id"), services)), 200);
  });
  return app;
}

async function receivePart(request: Request, id: string, { data, storage: { uploads } }: Services) {
  using _hold = await uploads.hold(id);
  const folder = await data.temporary();
  try {
    const { files: [part] } = await receiveMultipart(request, {
      folder,
      fields: [],
      fileField: "data",
      maxBytes: MAX_PART_BYTES,
      maxFiles: 1,
      place: () => "content",
    });
    if (part) return await uploads.addPart(id, part);
    throw new OatmillError("invalid_request", 'Send the bytes as a file in the field "data"', "data");
  } finally {
    await removeTree(folder);
  }
}

function uploadBody(upload: Upload): z.infer<typeof uploadSchema> {
  return {
    id: upload.id,
    object: "upload",
    bytes: upload.bytes,
    created_at: seconds(upload.createdMs),
    expires_at: seconds(upload.expiresMs),
    filename: upload.filename,
    purpose: upload.purpose as z.infer<typeof purposeSchema>,
    status: upload.state,
    file: upload.fileObject && fileBody(upload.fileObject),
  };
}
const partBody = (part: StoredPart): z.infer<typeof partSchema> => ({
  id: part.id,
  object: "upload.part",
  created_at: seconds(part.createdMs),
  upload_id: part.upload,
  bytes: part.bytes,
  sha256: part.sha256,
});
const seconds = (ms: number) => Math.floor(ms / 1000);
