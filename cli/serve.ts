/** `serve`: the HTTP server, until SIGINT or SIGTERM. */
import { hubAccess } from "../hub/reference.ts";
import type { KvFormat } from "../kernels/kv_layout.ts";
import { parseKeys } from "../routes/api_keys.ts";
import { isLoopback } from "../routes/loopback.ts";
import { Server } from "../routes/server.ts";
import { log } from "../telemetry/log.ts";
import { otlpFromEnv } from "../telemetry/otlp.ts";
import type { AdapterArgument } from "./commands/arguments.ts";
import { BUNDLED_MODEL, ensureBundled } from "./bundled.ts";
import { note, print, ProgressBar } from "./output.ts";
import { startLines, type StartTimes } from "./start_times.ts";

export interface ServeOptions {
  readonly host: string;
  /** Listen beyond this machine also without API keys. */
  readonly allowAnonymous?: boolean;
  readonly corsOrigin?: readonly string[];
  readonly requestsPerMinute?: number;
  readonly tokensPerMinute?: number;
  readonly port: number;
  readonly data: string;
  readonly autotune: boolean;
  readonly threads?: number;
  readonly context?: number;
  readonly kv?: KvFormat;
  readonly maxSequences?: number;
  readonly maxWaiting?: number;
  /** Seconds in the queue. */
  readonly requestTimeout: number;
  readonly prefixCache: boolean;
  readonly speculation: boolean;
  readonly maxLoaded: number;
  readonly idleMinutes: number;
  readonly keepVersions: number;
  readonly keepEnded: number;
  readonly keepEndedDays: number;
  /** The model to load at once; true: the one that was used last; false: none. */
  readonly preload: string | boolean;
  readonly adapter?: readonly AdapterArgument[];
  readonly maxUploadBytes?: number;
  /** Bytes. */
  readonly storageQuota?: number;
  readonly bundled: boolean;
  /** Seconds. */
  readonly drainDelay: number;
  readonly drainTimeout: number;
}

export async function serve(options: ServeOptions): Promise<void> {
  /** performance.now() counts from Deno's own start. */
  const importsMs = performance.now();
  const { host, port, data, threads, context, kv, maxLoaded, maxUploadBytes, storageQuota } = options;
  const { maxSequences, maxWaiting, prefixCache, speculation, autotune } = options;
  const stop = Promise.withResolvers<void>();
  const abort = new AbortController();
  onSignals(() => {
    abort.abort();
    stop.resolve();
  });
  const server = await Server.open({
    data,
    otlp: otlpFromEnv((name) => Deno.env.get(name)),
    engine: {
      threads,
      contextLength: context,
      kvFormat: kv,
      maxSequences,
      maxWaiting,
      maxWaitMs: options.requestTimeout * 1000,
      prefixCache,
      speculation,
      tuning: { autotune },
    },
    maxLoaded,
    idleMs: options.idleMinutes * 60_000,
    keepVersions: options.keepVersions,
    retention: { most: options.keepEnded, ms: options.keepEndedDays * 86_400_000 },
    hub: hubAccess(Deno.env),
    corsOrigins: options.corsOrigin,
    rates: { requestsPerMinute: options.requestsPerMinute, tokensPerMinute: options.tokensPerMinute },
    apiKeys: parseKeys(Deno.env.get("OATMILL_API_KEYS")),
    limits: {
      ...maxUploadBytes === undefined ? {} : { uploadBytes: maxUploadBytes },
      ...storageQuota === undefined ? {} : { storageBytes: storageQuota },
    },
  });
  try {
    const openMs = performance.now() - importsMs;
    const address = server.listen({ host, port, allowAnonymous: options.allowAnonymous });
    const listeningMs = performance.now();
    if (options.bundled) await prepareBundled(server, abort.signal);
    if (options.adapter) await addAdapters(server, options.adapter);
    const bundledMs = performance.now() - listeningMs;
    const model = preloaded(server, options.preload);
    const load = await server.warmUp(model, { required: typeof options.preload === "string" });
    const times: StartTimes = {
      importsMs,
      openMs,
      listeningMs,
      bundledMs,
      readyMs: performance.now(),
      model,
      load,
    };
    log("info", "ready", {
      model,
      imports_ms: Math.round(importsMs),
      open_ms: Math.round(openMs),
      listening_ms: Math.round(listeningMs),
      ready_ms: Math.round(times.readyMs),
    });
    print(
      welcome(address, { bundled: options.bundled, keys: server.services.keys.required }) + "\n" +
        startLines(times).join("\n"),
    );
    await stop.promise;
  } catch (error) {
    if (!abort.signal.aborted) throw error;
  } finally {
    await server.close({ delayMs: options.drainDelay * 1000, timeoutMs: options.drainTimeout * 1000 });
  }
}

/** As shells report a process that a signal ended. */
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;

/** The first SIGINT or SIGTERM stops in order, the second at once; a terminal that closes (SIGHUP) stops nothing. */
function onSignals(stop: () => void): void {
  let stopping = false;
  for (const [signal, code] of Object.entries(EXIT_CODES) as [keyof typeof EXIT_CODES, number][]) {
    Deno.addSignalListener(signal, () => {
      if (stopping) Deno.exit(code);
      stopping = true;
      stop();
    });
  }
  Deno.addSignalListener("SIGHUP", () => log("info", "SIGHUP ignored"));
}

/** @throws {OatmillError} model_not_found for a name or a version that no model has */
function preloaded({ services: { registry } }: Server, preload: string | boolean): string | null {
  if (typeof preload === "string") return registry.get(preload) && preload;
  return preload ? registry.lastUsed() : null;
}

async function prepareBundled(server: Server, signal: AbortSignal): Promise<void> {
  const { registry } = server.services;
  if (registry.has(BUNDLED_MODEL)) return;
  note("Compressing the bundled model, once:");
  const bar = new ProgressBar();
  await registry.prepare(
    BUNDLED_MODEL,
    () => ensureBundled(server.services, { signal, onProgress: (p) => bar.show(p) }),
  );
  bar.end();
}

/** Those that are there already, with the same content, stay; others of the name are replaced. */
async function addAdapters({ services }: Server, adapters: readonly AdapterArgument[]): Promise<void> {
  const { ensureAdapter } = await import("../routes/ensure_adapter.ts");
  for (const adapter of adapters) await ensureAdapter(services, adapter);
}

/** Where it is, who may call it, and a line to try it with. */
export function welcome(
  { host, port }: { host: string; port: number },
  { bundled, keys }: { readonly bundled: boolean; readonly keys: boolean },
): string {
  const shown = host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host;
  const url = `http://${shown.includes(":") ? `[${shown}]` : shown}:${port}`;
  const lines = [`Oatmill serves on ${url}`, `Console: ${url}/`, whoMayCall(host, keys)];
  const key = keys ? ' -H "authorization: Bearer $OATMILL_API_KEY"' : "";
  if (bundled) {
    const body =
      `{"model": "${BUNDLED_MODEL}", "prompt": "Once upon a time", "max_tokens": 64, "temperature": 0.7}`;
    lines.push(
      "Try it:",
      `  curl ${url}/v1/completions${key} -H 'content-type: application/json' -d '${body}'`,
    );
  } else lines.push("Upload a model:", `  curl${key} -F files=@model.gguf ${url}/v1/models`);
  return lines.join("\n");
}

function whoMayCall(host: string, keys: boolean): string {
  if (keys) return "Every request needs an API key; only /healthz, /readyz and the API's documents are open";
  return isLoopback(host)
    ? 'No API keys: for this machine only ("deno task oatmill keys add NAME" makes one)'
    : "No API keys: whoever reaches it may run, add and delete models (--allow-anonymous)";
}
