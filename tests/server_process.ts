/** The real server: a process with the permissions of `deno task start`, on a free port. Tests only. */
import { fileURLToPath } from "node:url";
import project from "../deno.json" with { type: "json" };

export const ROOT = fileURLToPath(new URL("../", import.meta.url));

/** A task's permission flags, so that what is tested is what is run. */
export function permissionsOf(task: "start" | "oatmill"): string[] {
  return project.tasks[task].split(" ").filter((word) => word.startsWith("--allow-"));
}

export class ServerProcess implements AsyncDisposable {
  #stderr = "";
  private constructor(
    readonly child: Deno.ChildProcess,
    readonly url: string,
    readonly welcome: string,
    readonly startMs: number,
  ) {
    this.#collectErrors();
  }

  /** Resolves when the server says that it serves. */
  static async start(
    data: string,
    options: { args?: string[]; env?: Record<string, string> } = {},
  ): Promise<ServerProcess> {
    const start = performance.now();
    const permissions = permissionsOf("start").filter((p) => !/^--allow-(write|read)/.test(p));
    const child = new Deno.Command(Deno.execPath(), {
      cwd: ROOT,
      args: [
        "run",
        "--no-prompt",
        ...permissions,
        `--allow-read=.,${data}`,
        `--allow-write=${data}`,
        "main.ts",
        "serve",
        "--port",
        "0",
        ...options.args ?? [],
      ],
      env: { OATMILL_DATA: data, OATMILL_HOST: "127.0.0.1", OTEL_EXPORTER_OTLP_ENDPOINT: "", ...options.env },
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const reader = child.stdout.getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Error(`The server ended: ${await new Response(child.stderr).text()}`);
      text += new TextDecoder().decode(value);
      const url = /serves on (http:\S+)/.exec(text)?.[1];
      if (url && text.endsWith("\n")) {
        reader.releaseLock();
        await child.stdout.cancel();
        return new ServerProcess(child, url, text, performance.now() - start);
      }
    }
  }
  async #collectErrors(): Promise<void> {
    for await (const chunk of this.child.stderr) this.#stderr += new TextDecoder().decode(chunk);
  }
  /** What it has logged so far. */
  get log(): string {
    return this.#stderr;
  }

  get(path: string, init?: RequestInit): Promise<Response> {
    return fetch(this.url + path, init);
  }
  post(path: string, body: unknown, init: RequestInit = {}): Promise<Response> {
    const headers = { "content-type": "application/json" };
    return this.get(path, { method: "POST", headers, body: JSON.stringify(body), ...init });
  }
  /** Asks it to stop; @returns its exit code */
  async stop(): Promise<number> {
    this.child.kill("SIGTERM");
    return (await this.child.status).code;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.stop();
    } catch {
      // It had ended.
    }
  }
}

/** Folder of the shared test material, or null where it is absent. */
export function sharedFolder(path: string): string | null {
  const folder = fileURLToPath(new URL(`../../shared/${path}`, import.meta.url));
  try {
    Deno.statSync(folder);
    return folder;
  } catch {
    return null;
  }
}
