/** One request that must be refused, and whether an answer refuses it as it should. */
import type { FaultReport } from "./report.ts";

// deno-lint-ignore no-explicit-any -- JSON answers, looked into by path
export type Json = any;

export interface BadInput {
  readonly what: string;
  readonly path: string;
  /** Default: POST, as JSON. */
  readonly init: RequestInit;
  /** The field that the error must name. */
  readonly param?: string;
}

export const jsonInit = (body: BodyInit): RequestInit => ({
  method: "POST",
  headers: { "content-type": "application/json" },
  body,
});

/** @returns null when the server refuses as it should, else what it did */
async function judge(url: string, { path, init, param }: BadInput): Promise<string | null> {
  const response = await fetch(url + path, { ...init, signal: AbortSignal.timeout(30_000) });
  const text = await response.text();
  if (response.status < 400 || response.status > 499) return `${response.status} ${text.slice(0, 200)}`;
  if (init.method === "HEAD") return null;
  const error: Json = JSON.parse(text).error;
  const isText = (value: unknown) => typeof value === "string" && value !== "";
  const orNull = (value: unknown) => value === null || isText(value);
  const shaped = isText(error?.message) && isText(error.type) && isText(error.code) && orNull(error.param);
  if (!shaped) return `${response.status} without OpenAI's shape: ${text.slice(0, 200)}`;
  const named = param === undefined || error.param === param || error.param?.startsWith(`${param}.`);
  return named ? null : `the error names ${JSON.stringify(error.param)}: ${error.message}`;
}

/** As many at once as a few clients send. */
const AT_ONCE = 8;

export async function sendAll(
  url: string,
  inputs: readonly BadInput[],
  headers: Readonly<Record<string, string>> = {},
): Promise<Pick<FaultReport, "bad_inputs" | "failures">> {
  const failures: string[] = [], waiting = [...inputs];
  const client = async () => {
    for (let input = waiting.shift(); input; input = waiting.shift()) {
      const init = { ...input.init, headers: { ...headers, ...input.init.headers } };
      const wrong = await judge(url, { ...input, init }).catch((error) => `no answer: ${error}`);
      if (wrong !== null) failures.push(`${init.method ?? "GET"} ${input.path}, ${input.what}: ${wrong}`);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, client));
  return { bad_inputs: { tried: inputs.length, refused: inputs.length - failures.length }, failures };
}
