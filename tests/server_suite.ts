/** A suite of tests that share one server process with an empty data folder, and what they do with it. */
import assert from "node:assert/strict";
import { afterAll, beforeAll } from "@std/testing/bdd";
import { ServerProcess } from "./server_process.ts";

// deno-lint-ignore no-explicit-any -- JSON answers, looked into by path
type Json = any;

/** Call it within `describe()`. @param args more of the command line @returns the server, once the suite's tests run */
export function useServer(args: string[] = []): () => ServerProcess {
  let data: string, server: ServerProcess;
  beforeAll(async () => {
    data = await Deno.makeTempDir();
    server = await ServerProcess.start(data, { args: ["--no-bundled", ...args] });
  });
  afterAll(async () => {
    await server[Symbol.asyncDispose]();
    await Deno.remove(data, { recursive: true });
  });
  return () => server;
}

/** Uploads files as one model and waits for its compression. @returns the job at its end, whatever that is */
export async function uploadModel(
  server: ServerProcess,
  files: Readonly<Record<string, Uint8Array<ArrayBuffer>>>,
  { name, recipe }: { readonly name: string; readonly recipe: object },
): Promise<Json> {
  const body = new FormData();
  body.append("name", name);
  body.append("recipe", JSON.stringify(recipe));
  for (const [file, bytes] of Object.entries(files)) body.append("files", new Blob([bytes]), file);
  const response = await server.get("/v1/models", { method: "POST", body });
  const { id, error }: Json = await response.json();
  assert.equal(response.status, 202, JSON.stringify(error));
  await (await server.get(`/v1/compressions/${id}/events?stream=true`)).text();
  return await (await server.get(`/v1/compressions/${id}`)).json();
}
