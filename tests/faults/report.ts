/** What the fault campaigns did to a server and what became of it: the figures of `deno task test:faults`. */
export interface FaultReport {
  /** Kills of a server, and how many of them a restart made good. */
  readonly crashes: { readonly tried: number; readonly survived: number };
  /**
   * `answered` has a whole answer, or an error in OpenAI's shape that says what to do next; `lost` got neither (a broken
   * connection, a stream that ends without an error). Requests under way at a `kill -9` are not counted: nobody could
   * answer them.
   */
  readonly requests: { readonly sent: number; readonly answered: number; readonly lost: number };
  /** `refused`: by the right 4xx, with the server up. */
  readonly bad_inputs: { readonly tried: number; readonly refused: number };
  /** What went wrong, a sentence each; empty when nothing did. */
  readonly failures: readonly string[];
  /** What was measured on the way, a line each. */
  readonly notes: readonly string[];
}
export interface CampaignOptions {
  /** Repeats a campaign's random choices. */
  readonly seed: number;
  /** As long as `deno task test:faults` has; else as short as the test suite needs (half a minute). */
  readonly full: boolean;
}
/** Starts what it needs, harms it, and leaves nothing behind. It throws only what is a fault of the campaign itself. */
export type Campaign = (options: CampaignOptions) => Promise<Partial<FaultReport>>;

/** Sums of what the parts have. */
export function mergeReports(parts: readonly Partial<FaultReport>[]): FaultReport {
  const sum = (of: (part: Partial<FaultReport>) => number | undefined) =>
    parts.reduce((total, part) => total + (of(part) ?? 0), 0);
  return {
    crashes: { tried: sum((p) => p.crashes?.tried), survived: sum((p) => p.crashes?.survived) },
    requests: {
      sent: sum((p) => p.requests?.sent),
      answered: sum((p) => p.requests?.answered),
      lost: sum((p) => p.requests?.lost),
    },
    bad_inputs: { tried: sum((p) => p.bad_inputs?.tried), refused: sum((p) => p.bad_inputs?.refused) },
    failures: parts.flatMap((p) => p.failures ?? []),
    notes: parts.flatMap((p) => p.notes ?? []),
  };
}

/** Nothing lost, every crash survived, every bad input refused. */
export const passed = ({ crashes, requests, bad_inputs, failures }: FaultReport): boolean =>
  failures.length === 0 && requests.lost === 0 && crashes.survived === crashes.tried &&
  bad_inputs.refused === bad_inputs.tried;
