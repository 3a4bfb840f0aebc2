/** How an embedding model pools, as the library that made most of them writes it: modules.json and what it names. */
import { join } from "node:path";
import { z } from "@hono/zod-openapi";
import { OatmillError } from "../../errors.ts";
import type { Pooling } from "../encoder_spec.ts";
import { readJsonFile } from "./json_file.ts";

export interface SentencePooling {
  readonly pooling: Exclude<Pooling, "pooler">;
  /** The vector is brought to length 1. */
  readonly unitLength: boolean;
}

const MAX_BYTES = 1 << 20;
const POOLING_FILE = "1_Pooling/config.json";
const MODULES_FILE = "modules.json";

const MODES: Readonly<Record<string, SentencePooling["pooling"]>> = {
  pooling_mode_cls_token: "cls",
  pooling_mode_mean_tokens: "mean",
};
const modulesSchema = z.array(z.looseObject({ type: z.string() }));

/**
 * The pooling of the model in a folder; null where nothing says it.
 * @throws {OatmillError} invalid_config; unsupported_architecture: it pools in a way that is not known here
 */
export async function readSentencePooling(folder: string): Promise<SentencePooling | null> {
  const config = await readJsonFile(join(folder, POOLING_FILE), "invalid_config", MAX_BYTES);
  if (!config) return null;
  const asked = Object.keys(config).filter((name) =>
    name.startsWith("pooling_mode_") && config[name] === true
  );
  const pooling = asked.length === 1 && Object.hasOwn(MODES, asked[0]) ? MODES[asked[0]] : null;
  if (pooling) return { pooling, unitLength: await normalises(folder) };
  throw new OatmillError(
    "unsupported_architecture",
    `Cannot run the model: ${POOLING_FILE} asks for "${asked.join(" and ").slice(0, 200)}", known are ${
      Object.keys(MODES).join(", ")
    }`,
  );
}

/** Whether the chain of modules brings vectors to length 1. */
async function normalises(folder: string): Promise<boolean> {
  const path = join(folder, MODULES_FILE), info = await Deno.stat(path).catch(() => null);
  if (!info) return false;
  if (info.size > MAX_BYTES) {
    throw new OatmillError(
      "invalid_config",
      `Cannot read ${MODULES_FILE}: it has more than ${MAX_BYTES} bytes`,
    );
  }
  try {
    return modulesSchema.parse(JSON.parse(await Deno.readTextFile(path))).some(({ type }) =>
      type.endsWith(".Normalize")
    );
  } catch (cause) {
    throw new OatmillError("invalid_config", `Cannot read ${MODULES_FILE}: it is no list of modules`, null, {
      cause,
    });
  }
}
