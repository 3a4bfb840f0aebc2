/**
 * `deno task test:faults`: every campaign at full length. `--json` prints one document (figures of all and of each),
 * `--seed N` repeats a run, names of campaigns run these alone. Exit code 1 when something was lost.
 */
import { parseArgs } from "node:util";
import { type Campaign, type FaultReport, mergeReports, passed } from "./report.ts";

/** By name. */
const CAMPAIGNS: Readonly<Record<string, () => Promise<{ readonly campaign: Campaign }>>> = {
  bad_inputs: () => import("./bad_inputs.ts"),
  large: () => import("./large_requests.ts"),
  overload: () => import("./overload.ts"),
  shutdown: () => import("./shutdown.ts"),
  job_crashes: () => import("./job_crashes.ts"),
  storage: () => import("./storage_faults.ts"),
  swaps: () => import("./swaps.ts"),
};

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    options: { json: { type: "boolean" }, seed: { type: "string" } },
    allowPositionals: true,
  });
  const seed = Number(values.seed ?? Date.now() % 2 ** 31);
  const unknown = positionals.find((name) => !(name in CAMPAIGNS));
  if (unknown !== undefined || !Number.isSafeInteger(seed)) {
    console.error(`Usage: test:faults [--json] [--seed N] [${Object.keys(CAMPAIGNS).join("|")}]...`);
    return 2;
  }
  const names = positionals.length > 0 ? positionals : Object.keys(CAMPAIGNS);
  const campaigns: Record<string, FaultReport> = {};
  for (const name of names) {
    console.error(`${name}: runs with seed ${seed}`);
    campaigns[name] = await run(name, seed);
    console.error(`${name}: ${line(campaigns[name])}`);
  }
  const report = mergeReports(Object.values(campaigns));
  console.log(values.json ? JSON.stringify({ seed, ...report, campaigns }, null, 2) : line(report));
  return passed(report) ? 0 : 1;
}

/** A campaign that throws has failed; the others still run. */
async function run(name: string, seed: number): Promise<FaultReport> {
  try {
    const { campaign } = await CAMPAIGNS[name]();
    return mergeReports([await campaign({ seed, full: true })]);
  } catch (error) {
    return mergeReports([{ failures: [`${name}: ${(error as Error).stack ?? error}`] }]);
  }
}

const line = ({ crashes, requests, bad_inputs, failures, notes }: FaultReport): string =>
  [
    `crashes survived ${crashes.survived} of ${crashes.tried}`,
    `requests lost ${requests.lost} of ${requests.sent}`,
    `bad inputs refused ${bad_inputs.refused} of ${bad_inputs.tried}`,
    ...notes,
    ...failures,
  ].join("\n  ");

if (import.meta.main) Deno.exit(await main());
