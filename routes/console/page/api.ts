/** The server's API: requests with the user's key, errors as the server says them. */
import { keep, kept } from "./kept.ts";

/** What went wrong, in the server's words; `status` 0: the server was not reached. */
export class ApiError extends Error {
  constructor(message: string, readonly status: number, readonly code: string | null) {
    super(message);
  }
}

const STORED_AS = "oatmill-api-key";

/** For this tab and as long as it lives. */
export const storedKey = (): string | null => kept("sessionStorage", STORED_AS);

export function storeKey(key: string | null): void {
  declined = false;
  keep("sessionStorage", STORED_AS, key || null);
}

type AskForKey = (why: string) => Promise<string | null>;
let askForKey: AskForKey = () => Promise.resolve(null);
/** @param ask shows a dialog; null: the user gives none */
export const onKeyNeeded = (ask: AskForKey): void => void (askForKey = ask);

/** Requests that fail together ask once. */
let asking: Promise<boolean> | null = null;
/** Whoever gave none is not asked again by what runs by itself. */
let declined = false;

async function newKey(used: string | null, why: string): Promise<boolean> {
  if (storedKey() !== used) return true;
  if (declined) return false;
  asking ??= askForKey(why).then((key) => {
    if (key) storeKey(key);
    else declined = true;
    return key !== null;
  }).finally(() => asking = null);
  return await asking;
}

/** Sends it again with each new key that the user gives. @throws {ApiError} */
export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  for (;;) {
    const key = storedKey();
    const response = await send(path, { ...init, headers: { ...init.headers as object, ...bearer(key) } });
    if (response.ok) return response;
    const error = await readError(response);
    if (response.status !== 401 || !await newKey(key, error.message)) throw error;
  }
}

export const bearer = (key: string | null): Record<string, string> =>
  key ? { authorization: `Bearer ${key}` } : {};

async function send(path: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(path, init);
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ApiError("The server cannot be reached", 0, null);
  }
}

export async function readError(response: Response): Promise<ApiError> {
  return errorOf(await response.text(), response.status);
}
/** @param text a body in OpenAI's shape, or whatever a proxy in between says */
export function errorOf(text: string, status: number): ApiError {
  try {
    const { message, code } = JSON.parse(text).error;
    return new ApiError(message, status, code);
  } catch {
    return new ApiError(`The server answered with status ${status}`, status, null);
  }
}

export async function getJson<T>(path: string, init?: RequestInit): Promise<T> {
  return await (await request(path, init)).json();
}
export function postJson<T>(path: string, body: unknown, init: RequestInit = {}): Promise<T> {
  return getJson(path, { ...jsonBody(body), ...init });
}
export const jsonBody = (body: unknown): RequestInit => ({
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify(body),
});

export const messageOf = (error: unknown): string => error instanceof Error ? error.message : String(error);
