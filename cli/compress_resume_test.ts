/** What is left of a `compress` that was stopped, and what the next one makes of it. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { openArtifact } from "../models/formats/artifact.ts";
import { permissionsOf, ROOT } from "../tests/server_process.ts";

const QUICK = ["--method", "none", "--rate", "0", "--values", "int4", "--rounding", "feedback"];

/** A run of the command; @returns its errors, once `stop` has done what it does at a line of them */
async function run(
  args: string[],
  stop: (line: string, child: Deno.ChildProcess) => void = () => {},
): Promise<{ readonly code: number; readonly stderr: string }> {
  const child = new Deno.Command(Deno.execPath(), {
    cwd: ROOT,
    args: [
      "run",
      "--no-prompt",
      ...permissionsOf("oatmill"),
      "main.ts",
      "compress",
      "models/default",
      ...args,
    ],
    env: { NO_COLOR: "1" },
    stdout: "null",
    stderr: "piped",
  }).spawn();
  let stderr = "";
  for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
    stderr += text;
    text.split("\n").forEach((line) => stop(line, child));
  }
  return { code: (await child.status).code, stderr };
}

async function inFolder(use: (dir: string, args: string[]) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir(), text = join(dir, "text.txt");
  await Deno.writeTextFile(text, "Once upon a time there was a little girl named Lily. ".repeat(60));
  const calibration = ["--calibration", text, "--sequences", "3", "--length", "32"];
  try {
    await use(dir, ["--out", join(dir, "out"), ...QUICK, ...calibration]);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}
const left = (dir: string) => [...Deno.readDirSync(dir)].map(({ name }) => name).sort();

Deno.test("compress goes on where it was killed, and where Ctrl-C stopped it", () =>
  inFolder(async (dir, args) => {
    const at = (start: string, signal: Deno.Signal) => (line: string, child: Deno.ChildProcess) => {
      if (line.startsWith(start)) child.kill(signal);
    };
    await run(args, at("compress 2/6", "SIGKILL"));
    assert.deepEqual(left(dir), [".out.partial", "text.txt"]);
    const stopped = await run(args, at("compress 4/6", "SIGINT"));
    assert.match(stopped.stderr, /Going on where an earlier run stopped/);
    assert.match(stopped.stderr, /What is finished is kept in .*\.out\.partial/);
    assert.notEqual(stopped.code, 0);
    const { code, stderr } = await run(args);
    assert.equal(code, 0, stderr);
    assert.doesNotMatch(stderr, /compress [12]\/6/);
    assert.deepEqual(left(dir), ["out", "text.txt"]);
  }));

Deno.test("compress begins anew with --no-resume or another recipe, and keeps nothing of a bad one", () =>
  inFolder(async (dir, args) => {
    const kill = (line: string, child: Deno.ChildProcess) => {
      if (line.startsWith("compress 1/6")) child.kill("SIGKILL");
    };
    await run(args, kill);
    const other = await run([...args, "--values", "int3"], kill);
    assert.match(other.stderr, /Beginning anew: an earlier run was of another recipe/);
    const anew = await run([...args, "--values", "int3", "--no-resume"], kill);
    assert.doesNotMatch(anew.stderr, /earlier run/);
    assert.deepEqual(left(dir), [".out.partial", "text.txt"]);
    assert.equal((await run([...args, "--calibration", join(dir, "none.txt")])).code, 1);
    assert.deepEqual(left(dir), ["text.txt"]);
  }));

Deno.test("compress ends a recovery at the first Ctrl-C, and makes the artifact of the best so far", () =>
  inFolder(async (dir, args) => {
    const recipe = ["--method", "oats", "--rate", "0.5", "--values", "int8", "--rounding", "nearest"];
    const recover = ["--recover", "distill", "--recover-length", "32", "--recover-tokens", "2000"];
    // As many different words as it takes for no sentence to come twice.
    const words = Array.from({ length: 300 }, (_, i) => `word${i * i * 31 % 997} of ${i}`);
    await Deno.writeTextFile(join(dir, "text.txt"), words.join(" "));
    const quick = ["--iterations", "1", "--allocation", "uniform", "--no-refine", "--sequences", "8"];
    const { code, stderr } = await run([...args, ...recipe, ...quick, ...recover], (line, child) => {
      if (/^recover .* loss /.test(line)) child.kill("SIGINT");
    });
    assert.equal(code, 0, stderr);
    assert.match(stderr, /Ending the recovery with the best so far/);
    const { recovery, perplexity } = (await openArtifact(join(dir, "out"))).header;
    assert.equal(recovery!.stopped, "cancelled");
    assert.equal(recovery!.perplexity!.after, perplexity!.compressed);
    assert.deepEqual(left(dir), ["out", "text.txt"]);
  }));
