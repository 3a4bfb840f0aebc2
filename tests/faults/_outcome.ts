/** Sends a completion and says what became of it. */
import { readEvents } from "../fake_server.ts";
import type { FaultReport } from "./report.ts";

/** `refused`: an error in OpenAI's shape that tells the client to come again, or no connection at all. */
export type Outcome =
  | { readonly kind: "answered" }
  /** `status` is undefined where there was no connection. */
  | { readonly kind: "refused"; readonly status?: number }
  /** `began`: its status had come. */
  | { readonly kind: "lost"; readonly why: string; readonly began: boolean };

// deno-lint-ignore no-explicit-any -- JSON answers, looked into by path
type Json = any;

/** Statuses by which a server that is full or leaves sends a client away. */
const SENT_AWAY = [429, 503];

/** @param body of POST /v1/completions */
export async function complete(url: string, body: Record<string, unknown>): Promise<Outcome> {
  let began = false;
  try {
    const response = await fetch(`${url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    began = true;
    if (response.ok && body.stream) return streamed(await readEvents(response) as Json[]);
    const answer: Json = await response.json();
    if (SENT_AWAY.includes(response.status)) return sentAway(response, answer);
    if (response.ok && answer.choices.every((c: Json) => c.finish_reason !== null)) {
      return { kind: "answered" };
    }
    return { kind: "lost", why: `status ${response.status}: ${JSON.stringify(answer)}`, began };
  } catch (error) {
    const why = `${error}: ${(error as Error).cause}`;
    // Nobody listens, or does no more (a connection that nobody had accepted yet is reset): no server saw the request.
    return /client error \(Connect\)/.test(why) ? { kind: "refused" } : { kind: "lost", why, began };
  }
}

function streamed(events: readonly Json[]): Outcome {
  const last = events.at(-1);
  if (last === "[DONE]") return { kind: "answered" };
  return last?.error?.code
    ? { kind: "refused" }
    : { kind: "lost", why: "the stream ends without an error", began: true };
}

function sentAway(response: Response, answer: Json): Outcome {
  const says = Number(response.headers.get("retry-after")) > 0 && answer.error?.code;
  return says
    ? { kind: "refused", status: response.status }
    : { kind: "lost", why: `${response.status} without retry-after and code`, began: true };
}

/** As figures of a report. */
export function count(outcomes: readonly Outcome[]): Pick<FaultReport, "requests" | "failures"> {
  const failures = outcomes.flatMap((o) => o.kind === "lost" ? [`A request was lost: ${o.why}`] : []);
  const sent = outcomes.length, lost = failures.length;
  return { requests: { sent, answered: sent - lost, lost }, failures: [...new Set(failures)] };
}
