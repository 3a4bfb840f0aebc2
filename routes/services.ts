/** What the handlers work with; made by server.ts, or by tests with a fake engine. */
import { OpenAPIHono, type z } from "@hono/zod-openapi";
import type { HubAccess } from "../hub/reference.ts";
import type { Telemetry } from "../telemetry/telemetry.ts";
import type { ImageReader } from "../vision/image_reader.ts";
import type { ApiKeys } from "./api_keys.ts";
import { invalidInput } from "./errors.ts";
import type { JobRunner } from "./jobs.ts";
import type { DataFolder } from "../store/data_folder.ts";
import type { Storage } from "../store/storage.ts";
import type { LoadRunner } from "./loads/load_runner.ts";
import type { LoadSettings } from "./loads/loads.ts";
import type { RateLimiter } from "./rate_limits.ts";
import type { ModelRegistry } from "./registry.ts";
import type { SpeedRunner } from "./speeds/speed_runner.ts";
import type { Traffic } from "./traffic.ts";

export interface Limits {
  /** Bytes of a JSON body, or of a form with one image. */
  readonly jsonBytes: number;
  /** Bytes of all files of one upload, and of what an archive unpacks to. */
  readonly uploadBytes: number;
  /** Files of one upload, and of an archive. */
  readonly uploadFiles: number;
  /** Bytes of all files and uploads under way; Infinity: only the disk limits. */
  readonly storageBytes: number;
  /** A whole answer that takes longer begins before it is there (whole_answer.ts). */
  readonly beginAfterMs: number;
}
export const DEFAULT_LIMITS: Limits = {
  jsonBytes: 16 * 2 ** 20,
  uploadBytes: 64 * 2 ** 30,
  uploadFiles: 512,
  storageBytes: Infinity,
  beginAfterMs: 5000,
};

export interface Services {
  readonly version: string;
  readonly telemetry: Telemetry;
  readonly data: DataFolder;
  readonly registry: ModelRegistry;
  readonly jobs: JobRunner;
  readonly storage: Storage;
  readonly limits: Limits;
  readonly images: ImageReader;
  readonly keys: ApiKeys;
  readonly rates: RateLimiter;
  readonly traffic: Traffic;
  /** Whose pages may call from a browser. */
  readonly corsOrigins: readonly string[];
  /** Where models are pulled from. */
  readonly hub: HubAccess;
  readonly loads: LoadRunner<LoadSettings>;
  readonly speeds: SpeedRunner;
  /** Where the server reaches itself, as in `http://127.0.0.1:8000`; null before it listens. */
  address(): string | null;
  /** Why the server is not ready, or null when it is. */
  notReady(): string | null;
}

/** An app for one resource: its validation errors are 400 and name the field. */
export function resource(): OpenAPIHono {
  return new OpenAPIHono({
    defaultHook: (result) => {
      if (!result.success) throw invalidInput(result.error as z.ZodError);
    },
  });
}
