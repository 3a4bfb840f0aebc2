/** Errors as OpenAI's clients expect them: `{"error": {message, type, param, code}}`, all four keys always. */
import { z } from "@hono/zod-openapi";
import type { ErrorHandler } from "hono";
import { HTTPException } from "hono/http-exception";
import { type ErrorInfo, ERRORS, OatmillError } from "../errors.ts";
import { asStorageError } from "../store/data_folder.ts";
import { log } from "../telemetry/log.ts";
import { currentRecord, currentRequestId } from "./request_context.ts";

export const errorSchema = z.object({
  error: z.object({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string().nullable(),
  }),
}).openapi("Error");
export type ErrorBody = z.infer<typeof errorSchema>;

/** The `default` response of every operation; openapi.ts makes of it the statuses that can be. */
export const errorResponse = {
  description: "An error in OpenAI's shape",
  content: { "application/json": { schema: errorSchema } },
};

/** By status: what to send along, seconds after which a client may try again. */
const HEADERS: Readonly<Record<number, Record<string, string>>> = {
  401: { "www-authenticate": "Bearer" },
  429: { "retry-after": "1" },
  503: { "retry-after": "2" },
};

export interface HttpError {
  readonly status: ErrorInfo["status"];
  readonly body: ErrorBody;
}

/** What nobody foresaw is a 500 without details: they are in the log. */
export function toHttpError(thrown: unknown): HttpError {
  const error = asStorageError(thrown, "write to the data folder");
  if (error instanceof OatmillError) {
    const { status, type } = ERRORS[error.code];
    return { status, body: errorBody(error.message, type, error.param, error.code) };
  }
  // Hono's own: a body of another type, that is not JSON, or that ends early.
  if (error instanceof HTTPException && error.status === 415) {
    return toHttpError(new OatmillError("unsupported_media_type", "Send the body as application/json"));
  }
  if (error instanceof HTTPException && error.status < 500) {
    return { status: 400, body: errorBody(error.message, "invalid_request_error", null, "invalid_request") };
  }
  const message = "The server met an unexpected error; its log has the cause";
  return { status: 500, body: errorBody(message, "server_error", null, "internal_error") };
}

/** `error.type` of spans and metrics. */
export const errorTypeOf = (error: unknown): string => toHttpError(error).body.error.code!;

export function logUnexpected(error: unknown, where: string): void {
  const { status } = toHttpError(error);
  // A disk that fails, unless someone who knows what for has said so.
  const failedDisk = status === 507 && !(error instanceof OatmillError);
  if (status !== 500 && !failedDisk) return;
  const stack = error instanceof Error ? error.stack : String(error);
  log("error", "unexpected error", { request_id: currentRequestId(), where, error: stack });
}

export const onError: ErrorHandler = (error, c) => {
  logUnexpected(error, c.req.path);
  const { status, body } = toHttpError(error);
  currentRecord()?.add({ error: body.error.code });
  return c.json(body, status, { ...HEADERS[status], ...retryAfter(error) });
};

/** Whole seconds for everybody, milliseconds for OpenAI's clients. */
function retryAfter(error: unknown): Record<string, string> {
  if (!(error instanceof OatmillError) || error.retryAfterMs === undefined) return {};
  const ms = error.retryAfterMs;
  return { "retry-after": String(Math.ceil(ms / 1000)), "retry-after-ms": String(ms) };
}

/** Zod's first complaint, as invalid_request (or `code`) naming the field. */
export function invalidInput(
  error: z.ZodError,
  options: { code?: "invalid_request" | "invalid_recipe"; within?: string } = {},
): OatmillError {
  const issue = deepest(error.issues[0]);
  const param = [...options.within ? [options.within] : [], ...issue.path].join(".");
  const reason = issue.message.replace(/^Invalid input: /, "");
  const message = param === "" ? reason : `Invalid value of "${param}": ${reason}`;
  return new OatmillError(options.code ?? "invalid_request", message, param || null);
}

type Issue = z.core.$ZodIssue;
/** Of a union's complaints, those of the variant that came furthest say most: of an element, of the value, of its type. */
function deepest(issue: Issue): Issue {
  if (issue.code !== "invalid_union" || issue.errors.length === 0) return issue;
  const inner = issue.errors.flatMap((e) => e.slice(0, 1)).map(deepest);
  const depth = (i: Issue) => i.path.length > 0 ? i.path.length + 1 : i.code === "invalid_type" ? 0 : 1;
  const element = ({ path: [first] }: Issue) => typeof first === "number" ? first : 0;
  const best = inner.toSorted((a, b) => depth(b) - depth(a) || element(b) - element(a))[0];
  if (!best || depth(best) === 0) return { ...issue, message: unionMessage(inner) };
  return { ...best, path: [...issue.path, ...best.path] } as Issue;
}
function unionMessage(inner: Issue[]): string {
  const expected = inner.flatMap((i) => i.code === "invalid_type" ? [i.expected as string] : []);
  return expected.length > 0 ? `expected ${[...new Set(expected)].join(" or ")}` : "Invalid input";
}

const errorBody = (message: string, type: string, param: string | null, code: string): ErrorBody => ({
  error: { message, type, param, code },
});
