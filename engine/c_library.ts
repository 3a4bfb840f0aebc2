/**
 * The C library of the system: the one thing outside the sandbox that serving calls, and only where `--allow-ffi` permits
 * it. Who uses it goes on without it.
 */

/** Where distributions keep it; `deno.json` and the Dockerfile permit these. */
const PATHS: Readonly<Record<string, readonly string[]>> = {
  x86_64: ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6"],
  aarch64: ["/lib/aarch64-linux-gnu/libc.so.6", "/lib64/libc.so.6"],
};

/** @returns null without the permission (nobody is asked for it) and on other systems */
export function openCLibrary<S extends Deno.ForeignLibraryInterface>(
  symbols: S,
): Deno.DynamicLibrary<S> | null {
  if (Deno.build.os !== "linux") return null;
  for (const path of PATHS[Deno.build.arch] ?? []) {
    // Asked first: dlopen() would prompt.
    if (Deno.permissions.querySync({ name: "ffi", path }).state !== "granted") continue;
    try {
      return Deno.dlopen(path, symbols);
    } catch {
      // Another distribution's path.
    }
  }
  return null;
}
