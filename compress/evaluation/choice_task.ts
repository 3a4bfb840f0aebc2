/**
 * Multiple-choice tasks as files. A task NAME of a folder is NAME.jsonl, one question a line:
 *
 *     {"question": "What falls?", "choices": ["rain", "sky"], "answer": 0}
 *     {"context": "The opposite of hot is", "choices": ["cold", "warm"], "answer": 0}
 *
 * where a question is put as `Question: ...\nAnswer:` and a context as it stands; or, for the names below, the
 * instruction-style JSON array that fine-tuning sets of commonsense tasks come as.
 */
import { z } from "@hono/zod-openapi";
import { join } from "node:path";
import { OatmillError } from "../../errors.ts";

/** Each choice, after a space, continues the context. */
export interface ChoiceQuestion {
  readonly context: string;
  readonly choices: readonly string[];
  /** Index of the right choice. */
  readonly answer: number;
}

type Prompt = (question: string) => string;
const asked: Prompt = (question) => `Question: ${question}\nAnswer:`;
const bare: Prompt = (question) => question;

/** File of a known task, and how its questions are put: as lm-evaluation-harness does. */
const KNOWN: Readonly<Record<string, { readonly file: string; readonly prompt: Prompt }>> = {
  arc_easy: { file: "ARC-Easy.test.json", prompt: asked },
  piqa: { file: "piqa.test.json", prompt: asked },
  openbookqa: { file: "openbookqa.test.json", prompt: bare },
};

/** @throws {OatmillError} invalid_request when the folder has no such task or the file another shape */
export async function readTask(folder: string, name: string): Promise<ChoiceQuestion[]> {
  const known = KNOWN[name];
  const own = join(folder, `${name}.jsonl`);
  const lines = await textOf(own);
  if (lines !== null) return nonEmpty(parseLines(lines, own), own);
  const path = known && join(folder, known.file);
  const text = known && await textOf(path);
  if (typeof text === "string") return nonEmpty(parseInstructions(text, path, known.prompt), path);
  const names = [`"${name}.jsonl"`, ...known ? [`"${known.file}"`] : []].join(" nor ");
  throw new OatmillError(
    "invalid_request",
    `Cannot read task "${name}": "${folder}" has no ${names}`,
    "tasks",
  );
}

async function textOf(path: string): Promise<string | null> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

function nonEmpty(questions: ChoiceQuestion[], path: string): ChoiceQuestion[] {
  if (questions.length > 0) return questions;
  throw new OatmillError("invalid_request", `Cannot evaluate "${path}": it has no questions`, "tasks");
}

const lineSchema = z.object({
  question: z.string().min(1).optional(),
  context: z.string().min(1).optional(),
  choices: z.array(z.string().min(1)).min(2),
  answer: z.int().min(0),
}).refine((q) => (q.question === undefined) !== (q.context === undefined), {
  error: 'must have either "question" or "context"',
}).refine((q) => q.answer < q.choices.length, { error: '"answer" must be an index of "choices"' });

function parseLines(text: string, path: string): ChoiceQuestion[] {
  return text.split("\n").flatMap((line, i) => {
    if (line.trim() === "") return [];
    const { question, context, choices, answer } = parse(lineSchema, line, `line ${i + 1} of "${path}"`);
    return [{ context: context ?? asked(question!), choices, answer }];
  });
}

const instructionSchema = z.array(z.object({ instruction: z.string(), answer: z.string() }));

/** Items whose answer is none of the choices are left out, as the reference figures leave them out. */
function parseInstructions(text: string, path: string, prompt: Prompt): ChoiceQuestion[] {
  return parse(instructionSchema, text, `"${path}"`).flatMap((item, i) => {
    const match = INSTRUCTION.exec(item.instruction), number = /(\d)$/.exec(item.answer);
    if (!match || !number) {
      throw new OatmillError(
        "invalid_request",
        `Cannot read item ${i} of "${path}": it is no question`,
        "tasks",
      );
    }
    const [, question, list] = match;
    const choices = list.split(/\s*(?:Answer|Solution)\d: /).map((c) => c.trim()).filter(Boolean);
    const answer = Number(number[1]) - 1;
    return answer >= 0 && answer < choices.length ? [{ context: prompt(question), choices, answer }] : [];
  });
}

/** `Please choose ... to the question: Q`, an empty line, `Answer1: A Answer2: B`, and what the format is. */
const INSTRUCTION = /^.*?: (.*?)\n\n(.*?)(?:\n\nAnswer format.*)?$/s;

function parse<T>(schema: z.ZodType<T>, text: string, name: string): T {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new OatmillError("invalid_request", `Cannot read ${name}: it is not JSON`, "tasks", { cause });
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [{ path, message }] = result.error.issues;
  throw new OatmillError(
    "invalid_request",
    `Cannot read ${name}: ${[path.join("."), message].filter(Boolean).join(": ")}`,
    "tasks",
  );
}
