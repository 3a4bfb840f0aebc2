/** Log lines: one JSON object each on stderr, with the trace they belong to. Prompts and generated text never go in. */
import type { Span } from "@opentelemetry/api";

export type LogLevel = "info" | "warn" | "error";
export type LogFields = Record<string, string | number | boolean | null | undefined>;

const encoder = new TextEncoder();
let sink = (line: string): void => {
  try {
    Deno.stderr.writeSync(encoder.encode(line + "\n"));
  } catch {
    // Nobody reads it any more (a closed pipe or terminal): the server serves on.
  }
};

/** Sends lines elsewhere (tests); returns the former sink. */
export function setLogSink(to: (line: string) => void): (line: string) => void {
  const former = sink;
  sink = to;
  return former;
}

export function log(level: LogLevel, message: string, fields: LogFields = {}, span?: Span): void {
  const { traceId, spanId } = span?.spanContext() ?? {};
  const ids = traceId ? { trace_id: traceId, span_id: spanId } : {};
  sink(JSON.stringify({ time: new Date().toISOString(), level, message, ...fields, ...ids }));
}
