/** Running this very program again, in a process of its own. */
import { fileURLToPath } from "node:url";
import project from "../deno.json" with { type: "json" };

export const ROOT: string = fileURLToPath(new URL("../", import.meta.url));

/** The Deno that runs this, where it may be run by that name: what PATH has can be another one, or a script around it. */
export function denoCommand(): string {
  const command = Deno.execPath();
  return Deno.permissions.querySync({ name: "run", command }).state === "granted" ? command : "deno";
}

/** The permissions that a task of this project gives. */
export const taskPermissions = (task: "start" | "oatmill"): string[] =>
  project.tasks[task].split(" ").filter((word) => word.startsWith("--allow-"));
