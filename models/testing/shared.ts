/** Recorded references that lie beside the repository and are read in place; a test whose folder is absent is ignored. */
const ROOT = new URL("../../../shared/", import.meta.url);

export function shared(path: string): URL {
  return new URL(path, ROOT);
}

/** Registers a test that needs `folder`; without it the test is ignored and its name says why. */
export function oracleTest(name: string, folder: string, run: () => Promise<void> | void): void {
  const ignore = !exists(shared(folder));
  Deno.test({ name: ignore ? `${name} (ignored: ../shared/${folder} is absent)` : name, ignore, fn: run });
}

function exists(url: URL): boolean {
  try {
    Deno.statSync(url);
    return true;
  } catch {
    return false;
  }
}
