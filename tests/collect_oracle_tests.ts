/**
 * Prints as JSON which tests the given modules register for which folder of `../shared`, without running one:
 * `Deno.test` only counts here. Run by tests/oracle_coverage_test.ts in a process of its own.
 */
import { type OracleTest, registered } from "../models/testing/shared.ts";

let tests = 0;
const count = () => void tests++;
Object.assign(Deno, { test: Object.assign(count, { ignore: count, only: count }) });

/** A test, and the room that it stands in. */
export interface CollectedTest extends OracleTest {
  /** Relative to the repository. */
  readonly module: string;
}

const found: CollectedTest[] = [];
for (const module of Deno.args) {
  const before = tests;
  await import(new URL(`../${module}`, import.meta.url).href);
  const own = registered.splice(0);
  if (tests - before < own.length) throw new Error(`${module} does not register what it names`);
  found.push(...own.map((test) => ({ ...test, module })));
}
console.log(JSON.stringify(found));
Deno.exit(); // a module may hold a worker
