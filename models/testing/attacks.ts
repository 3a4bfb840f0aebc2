/** The hostile files of `../shared/oracles/attacks`, as their manifest lists them. Tests only. */
import { shared } from "./shared.ts";

export interface Attack {
  /** Below `attacks`. */
  readonly file: string;
  readonly expect: "refuse" | "accept" | "refuse_or_accept" | "accept_or_refuse_cleanly" | "see folder";
  /** Words with bars between them. */
  readonly error_should_mention?: string;
}

/** Of one folder; files that only belong to another one's case are left out. */
export async function attacks(folder: string): Promise<Attack[]> {
  const { files } = JSON.parse(await Deno.readTextFile(shared("oracles/attacks/MANIFEST.json")));
  return files.filter(({ file, expect }: Attack) => file.startsWith(`${folder}/`) && expect !== "see folder");
}

/** Most memory that a process has had; 0 where the system does not say. Through `cat`: Deno reads no /proc by --allow-read. */
export function peakBytes(pid: number = Deno.pid): number {
  if (Deno.build.os !== "linux") return 0;
  const { stdout } = new Deno.Command("cat", { args: [`/proc/${pid}/status`], stderr: "null" }).outputSync();
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(new TextDecoder().decode(stdout))?.[1] ?? 0) * 1024;
}
