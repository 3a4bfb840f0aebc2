/**
 * The commands. Their options stand in `commands/`, each command's work in the file of its name, loaded when it is called.
 * Exit codes: 0 done, 1 failed, 2 wrong usage.
 */
import { Command, CommanderError } from "commander";
import project from "../deno.json" with { type: "json" };
import { OatmillError } from "../errors.ts";
import { addBench } from "./commands/bench.ts";
import { addCompress, addRecover } from "./commands/compress.ts";
import { addEval } from "./commands/eval.ts";
import { addKeys } from "./commands/keys.ts";
import { addModels } from "./commands/models.ts";
import { addReport } from "./commands/report.ts";
import { addServe } from "./commands/serve.ts";
import { note, print } from "./output.ts";

export function createProgram(): Command {
  const program = new Command("oatmill")
    .description("Compresses transformers (sparse + low-rank) and serves them on CPUs.")
    .version(project.version)
    .exitOverride()
    .configureOutput({ writeOut: (s) => print(s), writeErr: (s) => note(s.trimEnd()) });
  addServe(program);
  addCompress(program);
  addRecover(program);
  addEval(program);
  addBench(program);
  addReport(program);
  addKeys(program);
  addModels(program);
  return program;
}

/** Parses and runs. @returns the exit code */
export async function run(args: readonly string[]): Promise<number> {
  try {
    await createProgram().parseAsync([...args], { from: "user" });
    return 0;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (error instanceof OatmillError || isSystemError(error)) note(`oatmill: ${error.message}`);
    else note(`oatmill: ${error instanceof Error ? error.stack ?? error.message : error}`);
    return 1;
  }
}

/** What the system refuses, such as a file that is not there: its message says which, a stack would say no more. */
const isSystemError = (error: unknown): error is Error =>
  Object.values(Deno.errors).some((kind) => error instanceof kind);
