/**
 * Every condition a caller can meet, in one table: its code, the HTTP status and the OpenAI error type.
 * Code below `routes/` throws an {@linkcode OatmillError} and never knows a status.
 */

export interface ErrorInfo {
  readonly status: 400 | 401 | 403 | 404 | 408 | 409 | 413 | 415 | 416 | 429 | 500 | 503 | 507;
  readonly type: string;
}

export const ERRORS = {
  /** A request field has the wrong type or value. */
  invalid_request: { status: 400, type: "invalid_request_error" },
  /** Prompt and requested tokens do not fit the model's context window. */
  context_length_exceeded: { status: 400, type: "invalid_request_error" },
  /** A tensor's offsets, shape and type disagree, leave the file, or a needed tensor is missing. */
  invalid_checkpoint: { status: 400, type: "invalid_request_error" },
  /** config.json or GGUF metadata is missing fields or holds impossible values. */
  invalid_config: { status: 400, type: "invalid_request_error" },
  /** The model's architecture has no family file. */
  unsupported_architecture: { status: 400, type: "invalid_request_error" },
  /** A file or tensor type that Oatmill does not read. */
  unsupported_format: { status: 400, type: "invalid_request_error" },
  /** A LoRA adapter is of a kind that is not known here, contradicts itself, or does not fit the model. */
  invalid_adapter: { status: 400, type: "invalid_request_error" },
  /** Weights hold NaN or infinity. */
  non_finite_weights: { status: 400, type: "invalid_request_error" },
  /** A model's hidden states overflow on the calibration text, or its answers on an input. */
  non_finite_activations: { status: 400, type: "invalid_request_error" },
  /** tokenizer.json (or the GGUF vocabulary) is missing or broken. */
  invalid_tokenizer: { status: 400, type: "invalid_request_error" },
  /** The chat template is missing, fails or costs too much. */
  invalid_chat_template: { status: 400, type: "invalid_request_error" },
  /** An archive is broken, unsafe (path traversal, links) or larger than allowed. */
  invalid_archive: { status: 400, type: "invalid_request_error" },
  /** An artifact folder fails its hashes or sizes. Over HTTP it is one of the server's own. */
  invalid_artifact: { status: 500, type: "server_error" },
  /** An image file is truncated, damaged or has no pixels. */
  invalid_image: { status: 400, type: "invalid_request_error" },
  /** A compression recipe is inconsistent. */
  invalid_recipe: { status: 400, type: "invalid_request_error" },
  /** The request has no API key, or one that the server does not know. */
  invalid_api_key: { status: 401, type: "authentication_error" },
  /** The API key may not do this. */
  missing_scope: { status: 403, type: "permission_error" },
  /** A web page that is not allowed calls a server without API keys. */
  foreign_origin: { status: 403, type: "permission_error" },
  /** No model of that name. */
  model_not_found: { status: 404, type: "invalid_request_error" },
  /** No job or file of that id, or no such route. */
  not_found: { status: 404, type: "invalid_request_error" },
  /** The hub has no such model, revision or file, or does not show it without another token. */
  source_not_found: { status: 404, type: "invalid_request_error" },
  /** The hub cannot be reached, or what it sends is not what it should be. */
  hub_unavailable: { status: 503, type: "server_error" },
  /** The client does not send its request to the end, or does not read its answer. */
  request_timeout: { status: 408, type: "invalid_request_error" },
  /** The name is taken, or the state forbids the action. */
  conflict: { status: 409, type: "invalid_request_error" },
  /** The body or a file is larger than allowed. */
  too_large: { status: 413, type: "invalid_request_error" },
  /** Files and uploads under way have what `--storage-quota` allows. */
  storage_quota_exceeded: { status: 413, type: "invalid_request_error" },
  /** The range begins past the file's end. */
  range_not_satisfiable: { status: 416, type: "invalid_request_error" },
  /** The request's media type is not accepted. */
  unsupported_media_type: { status: 415, type: "invalid_request_error" },
  /** The queue is full, or the caller has used up what a minute allows. */
  rate_limit_exceeded: { status: 429, type: "rate_limit_error" },
  /** The model is loading or the server is shutting down. */
  unavailable: { status: 503, type: "server_error" },
  /** The request waited too long for a place in the model's steps. */
  queue_timeout: { status: 503, type: "server_error" },
  /** The disk is full or not writable. */
  storage_failed: { status: 507, type: "server_error" },
  /** A stored file is not what was uploaded: the disk lost or changed it. */
  damaged_file: { status: 500, type: "server_error" },
  /** The machine's memory cannot hold the model. */
  insufficient_memory: { status: 507, type: "server_error" },
  /** The caller cancelled the work. */
  cancelled: { status: 409, type: "invalid_request_error" },
} as const satisfies Record<string, ErrorInfo>;

export type ErrorCode = keyof typeof ERRORS;

export interface OatmillErrorOptions extends ErrorOptions {
  /** When the same request can succeed, where that is known. */
  readonly retryAfterMs?: number;
}

export class OatmillError extends Error {
  readonly retryAfterMs?: number;
  constructor(
    readonly code: ErrorCode,
    message: string,
    readonly param: string | null = null,
    options?: OatmillErrorOptions,
  ) {
    super(message, options);
    this.name = "OatmillError";
    this.retryAfterMs = options?.retryAfterMs;
  }
}
