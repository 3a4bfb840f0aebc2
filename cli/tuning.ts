/** The autotuner's options of commands that open a model without a server. */
import { join } from "node:path";
import type { TuningOptions } from "../engine/tuning.ts";

/** Results are kept in the data folder when the environment names one. */
export function tuningOf({ autotune }: { readonly autotune?: boolean }): TuningOptions {
  const folder = Deno.env.get("OATMILL_DATA");
  return { autotune, file: folder ? join(folder, "tuning.json") : undefined };
}
