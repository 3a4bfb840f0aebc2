/** The thread of an `ImageReader`: one image a message. */
import { type ErrorCode, OatmillError } from "../errors.ts";
import { decodeImage } from "./decode.ts";
import type { Pixels } from "../models/classifier.ts";
import { prepareImage } from "./prepare.ts";
import type { ProcessorConfig } from "./processor_config.ts";

export interface ToWorker {
  readonly bytes: Uint8Array;
  readonly name: string;
  readonly config: ProcessorConfig;
}
/** @property code null for what nobody foresaw */
export type FromWorker =
  | { readonly pixels: Pixels }
  | { readonly code: ErrorCode | null; readonly message: string };

const scope = self as unknown as DedicatedWorkerGlobalScope; // the compiler's DOM library types `self` as a window

scope.onmessage = async ({ data }: MessageEvent<ToWorker>) => {
  try {
    const pixels = prepareImage(await decodeImage(data.bytes, data.name), data.config);
    scope.postMessage({ pixels } satisfies FromWorker, [pixels.data.buffer]);
  } catch (error) {
    const code = error instanceof OatmillError ? error.code : null;
    scope.postMessage(
      { code, message: error instanceof Error ? error.message : String(error) } satisfies FromWorker,
    );
  }
};
