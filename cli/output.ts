/** What commands print: results on stdout (one JSON document with --json), progress on stderr. */
import type { CompressProgress } from "../compress/types.ts";

const encoder = new TextEncoder();

/** The whole text, also through a pipe that is slow to read. */
export function print(text: string): void {
  const bytes = encoder.encode(text.endsWith("\n") ? text : text + "\n");
  for (let done = 0; done < bytes.length;) done += Deno.stdout.writeSync(bytes.subarray(done));
}
export function write(text: string): void {
  Deno.stdout.writeSync(encoder.encode(text));
}
export function note(text: string): void {
  Deno.stderr.writeSync(encoder.encode(text + "\n"));
}

/** One JSON document, or lines for people. */
export function printResult(result: unknown, options: { json?: boolean; lines: () => string[] }): void {
  if (options.json) {
    print(JSON.stringify(result, (_, v) => ArrayBuffer.isView(v) ? [...v as Float32Array] : v, 2));
  } else print(options.lines().join("\n"));
}

/** Columns as wide as their longest cell; numbers to the right. */
export function table(rows: readonly (readonly (string | number | null)[])[]): string[] {
  const cells = rows.map((r) => r.map((c) => c === null ? "-" : typeof c === "number" ? short(c) : c));
  const widths = cells[0]?.map((_, i) => Math.max(...cells.map((r) => r[i].length))) ?? [];
  return cells.map((r, y) =>
    r.map((c, i) => typeof rows[y][i] === "number" ? c.padStart(widths[i]) : c.padEnd(widths[i])).join("  ")
      .trimEnd()
  );
}
/** Four digits, and more before the point where they are needed. */
export const short = (n: number): string =>
  Number.isInteger(n) ? String(n) : Math.abs(n) >= 10_000 ? n.toFixed(0) : n.toPrecision(4);
export const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

const BAR_WIDTH = 30;

/** Of a compression, or of anything else that has steps. */
type Progress =
  & Pick<
    CompressProgress,
    "done" | "total" | "message" | "error" | "loss" | "tokensPerSecond" | "etaSeconds"
  >
  & { readonly phase: string };

/** Of a phase that has done nothing yet, what it waits for. */
function detailOf({ done, message, error, loss, tokensPerSecond, etaSeconds }: Progress): string {
  if (done === 0 && message !== undefined) return `  ${message}`;
  if (loss !== undefined) {
    const left = etaSeconds === undefined ? "" : `, ${Math.ceil(etaSeconds)} s left`;
    return `  loss ${loss.toFixed(4)}, ${(tokensPerSecond ?? 0).toFixed(0)} tokens/s${left}`;
  }
  return error === undefined ? "" : `  error ${error.toFixed(4)}`;
}

/** A bar on a terminal, one line for each tenth of a phase elsewhere, nothing when quiet. */
export class ProgressBar {
  #shown = "";
  constructor(readonly options: { readonly quiet?: boolean; readonly terminal?: boolean } = {}) {}

  show(progress: Progress): void {
    if (this.options.quiet) return;
    const { phase, done, total } = progress;
    const share = total > 0 ? Math.min(1, done / total) : 0;
    const detail = detailOf(progress);
    if (this.options.terminal ?? Deno.stderr.isTerminal()) {
      const bar = "#".repeat(Math.round(share * BAR_WIDTH)).padEnd(BAR_WIDTH, ".");
      const line = `${phase.padEnd(10)} [${bar}] ${Math.round(share * 100)} %  ${done}/${total}${detail}`;
      Deno.stderr.writeSync(encoder.encode(`\r${line}\x1b[K`));
      return;
    }
    const shown = `${phase} ${Math.floor(share * 10)}${done === 0 ? detail : ""}`;
    if (shown === this.#shown) return;
    this.#shown = shown;
    note(`${phase} ${done}/${total}${detail}`);
  }
  end(): void {
    if (!this.options.quiet && (this.options.terminal ?? Deno.stderr.isTerminal())) note("");
  }
}
