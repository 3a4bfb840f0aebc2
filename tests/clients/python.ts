/** A Python with the clients of requirements.txt, where there is one. Tests only. */
import { fileURLToPath } from "node:url";

export const CLIENTS = fileURLToPath(new URL(".", import.meta.url));

/** Of `OATMILL_PYTHON`, or of the environment that `.ci/run` makes; null where neither has these modules. */
export function pythonWith(...modules: string[]): string | null {
  const python = Deno.env.get("OATMILL_PYTHON") ?? `${CLIENTS}.venv/bin/python`;
  try {
    const imports = `import ${modules.join(", ")}`;
    const { success } = new Deno.Command(python, { args: ["-c", imports], stderr: "null" }).outputSync();
    return success ? python : null;
  } catch {
    return null;
  }
}

/** @returns what it printed, and whether it ended well */
export async function run(
  python: string,
  args: readonly string[],
  { cwd = CLIENTS, env = {} }: { cwd?: string; env?: Readonly<Record<string, string>> } = {},
): Promise<{ readonly success: boolean; readonly output: string }> {
  const command = new Deno.Command(python, {
    cwd,
    args: [...args],
    env: { PYTHONDONTWRITEBYTECODE: "1", ...env },
  });
  const { success, stdout, stderr } = await command.output();
  return { success, output: new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr) };
}
