/** The nice values of this process's threads. */

/** Through another program: Deno reads little of /proc without all permissions. */
export async function niceValues(): Promise<number[]> {
  const { stdout } = await new Deno.Command("sh", {
    args: ["-c", 'cat "/proc/$1/task/"*/stat', "sh", String(Deno.pid)],
    stdout: "piped",
    stderr: "null", // of a thread that ended meanwhile
  }).output();
  const lines = new TextDecoder().decode(stdout).trim().split("\n");
  // Field 19 of proc_pid_stat(5); the second one, a name in brackets, may hold anything.
  return lines.map((line) => Number(line.slice(line.lastIndexOf(")") + 2).split(" ")[16]));
}
