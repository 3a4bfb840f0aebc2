/** Recorded references that lie beside the repository and are read in place; a test whose folder is absent is ignored. */
const ROOT = new URL("../../../shared/", import.meta.url);

export function shared(path: string): URL {
  return new URL(path, ROOT);
}

export interface OracleTest {
  readonly name: string;
  /** Below `../shared`. */
  readonly folder: string;
}

/** What {@linkcode oracleTest} registered in this process: tests/oracle_coverage_test.ts asks for a test of every folder. */
export const registered: OracleTest[] = [];

type Run = () => Promise<void> | void;

/**
 * Registers a test of what `folder` holds: of that very folder, where there is one for each family. The test's name ends with
 * it (so that `--filter oracles` finds them all); without the folder the test is ignored and its name says why.
 */
export function oracleTest(
  name: string,
  folder: string,
  run: Run,
  options: Omit<Deno.TestDefinition, "name" | "fn" | "ignore"> = {},
): void {
  const ignore = !exists(shared(folder));
  const where = ignore ? `ignored: ../shared/${folder} is absent` : `../shared/${folder}`;
  registered.push({ name, folder });
  Deno.test({ ...options, name: `${name} (${where})`, ignore, fn: run });
}

function exists(url: URL): boolean {
  try {
    Deno.statSync(url);
    return true;
  } catch {
    return false;
  }
}
