/** What a load must know of a server before it starts. */
import { OatmillError } from "../../errors.ts";
import { seededRandom } from "../../compress/random.ts";
import { exchange, type Target } from "./client.ts";
import { words, type WordScale } from "./prompts.ts";

const TIMEOUT_MS = 30_000;

/**
 * @param baseUrl as of {@linkcode Target}
 * @returns ids of the server's models
 * @throws {OatmillError} unavailable: nobody answers, or something that is no OpenAI API
 */
export async function serverModels(
  baseUrl: string,
  apiKey?: string,
  signal?: AbortSignal,
): Promise<string[]> {
  const url = `${baseUrl}/models`;
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const headers = apiKey ? { authorization: `Bearer ${apiKey}` } : undefined;
  let response: Response;
  try {
    response = await fetch(url, { headers, signal: signal ? AbortSignal.any([signal, timeout]) : timeout });
  } catch (cause) {
    throw new OatmillError("unavailable", `Cannot reach ${url}: ${(cause as Error).message}`, null, {
      cause,
    });
  }
  const text = await response.text();
  if (!response.ok) {
    const key = response.status === 401 || response.status === 403
      ? "; the key is read from OPENAI_API_KEY"
      : "";
    throw new OatmillError("unavailable", `${url} answers ${response.status}: ${text.slice(0, 300)}${key}`);
  }
  return modelIds(text, url);
}

function modelIds(text: string, url: string): string[] {
  try {
    const ids = JSON.parse(text).data.map((model: { id: unknown }) => model.id);
    if (ids.every((id: unknown) => typeof id === "string")) return ids;
  } catch {
    // Said below.
  }
  throw new OatmillError("unavailable", `${url} is no list of models: is this the address of an OpenAI API?`);
}

/** @throws {OatmillError} unavailable: this process may not connect to the server, with the command that may */
export async function checkAllowed(baseUrl: string): Promise<void> {
  const { host, port, protocol } = new URL(baseUrl);
  const hostAndPort = port ? host : `${host}:${protocol === "https:" ? 443 : 80}`;
  const { state } = await Deno.permissions.query({ name: "net", host: hostAndPort });
  if (state === "granted") return;
  throw new OatmillError(
    "unavailable",
    `This process may not connect to ${host}: Oatmill's tasks reach this machine alone. For another host:\n` +
      `  ${remoteCommand(host)}`,
  );
}
/** The least that a load on another host needs. */
export const remoteCommand = (host: string): string =>
  `deno run --allow-net=${host} --allow-read=. --allow-write=. ` +
  "--allow-env=OPENAI_API_KEY,NO_COLOR,FORCE_COLOR,CLICOLOR_FORCE main.ts bench load --url …";

/** Words of the probes: far apart, so that what a chat's template adds is told from what words cost. */
const PROBES = [16, 144] as const;
/** Of English words in common vocabularies, where a server does not count for us. */
export const DEFAULT_SCALE: WordScale = { base: 0, perWord: 1.3 };

/**
 * How many tokens the server counts for our words: two requests for one token.
 * @returns null where it gives no usage
 * @throws {OatmillError} unavailable: the requests fail
 */
export async function wordScale(target: Target, signal?: AbortSignal): Promise<WordScale | null> {
  const counts: number[] = [];
  for (const count of PROBES) {
    const prompt = words(count, seededRandom(count));
    const { inputTokens, error } = await exchange(target, { prompt, outputTokens: 1 }, signal);
    if (error) {
      throw new OatmillError("unavailable", `A first request failed (${error.kind}): ${error.message}`);
    }
    if (!inputTokens) return null;
    counts.push(inputTokens);
  }
  const perWord = (counts[1] - counts[0]) / (PROBES[1] - PROBES[0]);
  return perWord > 0 ? { base: Math.max(0, counts[0] - perWord * PROBES[0]), perWord } : null;
}
