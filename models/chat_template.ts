/**
 * Chat templates with bounds: steps, depth, sizes. A template comes with an upload, so it may be hostile. Bounded: loops,
 * recursion, output, intermediate strings and lists, `range`. Not bounded: the time inside a single filter or method call
 * (they work on strings within the size limit, so it is at most seconds).
 */
import { Environment, Interpreter, Template } from "@huggingface/jinja";
import { OatmillError } from "../errors.ts";

/** A step is one evaluated node, about 2 µs; a message takes 10 to 60 in public templates. */
const MAX_STEPS = 500_000;
/** Each level takes several stack frames. */
const MAX_DEPTH = 250;
/** Longest text, and the longest list, any expression may yield. */
const MAX_TEXT_CHARS = 16 * 1024 * 1024;
const MAX_LIST_LENGTH = 200_000;
/** Sum of all texts the expressions yield. */
const MAX_TOTAL_CHARS = 512 * 1024 * 1024;

export class ChatTemplate {
  readonly #program: Template["parsed"];

  /** @throws {OatmillError} invalid_chat_template when it does not parse */
  constructor(source: string) {
    this.#program = guarded(() => new Template(source).parsed, "is not valid: ");
  }

  /** Whether it looks at a variable of this name, whatever it does with it. */
  reads(variable: string): boolean {
    return namesVariable(this.#program, variable);
  }

  /** @throws {OatmillError} invalid_chat_template when it fails, refuses the messages or costs too much */
  render(variables: Readonly<Record<string, unknown>>): string {
    return guarded(() => {
      const environment = new Environment();
      for (const [name, value] of Object.entries({ ...GLOBALS, ...variables })) environment.set(name, value);
      const { value } = new BoundedInterpreter(environment).run(this.#program);
      return String(value);
    }, "failed: ");
  }
}

/** As `setupGlobals` of the library, with a bounded range. */
const GLOBALS: Readonly<Record<string, unknown>> = {
  true: true,
  false: false,
  none: null,
  True: true,
  False: false,
  None: null,
  raise_exception: (message: string) => {
    throw new Error(message);
  },
  range: boundedRange,
  strftime_now: (format: string) => strftime(new Date(), format),
};

/** Level by level: a program may be nested deeper than functions can be. */
function namesVariable(program: unknown, name: string): boolean {
  for (let level: unknown[] = [program]; level.length > 0;) {
    const nodes = level.filter((v): v is Record<string, unknown> => typeof v === "object" && v !== null);
    if (nodes.some((node) => node.type === "Identifier" && node.value === name)) return true;
    level = nodes.flatMap((node) => {
      // `message.tools` is no variable of this name.
      const { property: _, ...others } = node;
      return Object.values(node.type === "MemberExpression" && !node.computed ? others : node);
    });
  }
  return false;
}

class LimitError extends Error {}

type Evaluate = Interpreter["evaluate"];

class BoundedInterpreter extends Interpreter {
  #steps = 0;
  #depth = 0;
  #chars = 0;

  override evaluate(...[statement, environment]: Parameters<Evaluate>): ReturnType<Evaluate> {
    if (++this.#steps > MAX_STEPS) throw new LimitError(`more than ${MAX_STEPS} steps`);
    if (++this.#depth > MAX_DEPTH) throw new LimitError(`nesting or recursion deeper than ${MAX_DEPTH}`);
    try {
      const result = this.#pythonMethod(statement, environment) ?? super.evaluate(statement, environment);
      if (result.type === "BooleanValue") result.toString = () => result.value ? "True" : "False"; // as Python prints
      this.#charge(result.value);
      return result;
    } finally {
      this.#depth--;
    }
  }

  /** String methods whose arguments the library ignores or does not know; null = not one of them. */
  #pythonMethod(...[statement, environment]: Parameters<Evaluate>): ReturnType<Evaluate> | null {
    // The library exports no node types; these are the fields of its CallExpression and MemberExpression.
    const call = statement as unknown as CallNode | undefined;
    if (call?.type !== "CallExpression" || call.callee.type !== "MemberExpression" || call.callee.computed) {
      return null;
    }
    const method = STRING_METHODS.get(call.callee.property.value ?? "");
    if (!method || call.args.length !== 1) return null;
    const text = this.evaluate(call.callee.object, environment);
    const argument = this.evaluate(call.args[0], environment);
    if (typeof text.value !== "string" || typeof argument.value !== "string") return null;
    return new Environment().set("result", method(text.value, argument.value));
  }

  #charge(value: unknown): void {
    if (typeof value === "string") {
      this.#chars += value.length;
      if (value.length > MAX_TEXT_CHARS) {
        throw new LimitError(`a text longer than ${MAX_TEXT_CHARS} characters`);
      }
      if (this.#chars > MAX_TOTAL_CHARS) throw new LimitError("too much text");
    } else if (Array.isArray(value) && value.length > MAX_LIST_LENGTH) {
      throw new LimitError(`a list longer than ${MAX_LIST_LENGTH}`);
    }
  }
}

type Node = Parameters<Evaluate>[0];
interface CallNode {
  readonly type: string;
  readonly args: readonly Node[];
  readonly callee: {
    readonly type: string;
    readonly computed: boolean;
    readonly object: Node;
    readonly property: { readonly value?: string };
  };
}

const STRING_METHODS: ReadonlyMap<string, (text: string, argument: string) => string | number> = new Map([
  ["strip", (text, chars) => stripEnd(stripStart(text, chars), chars)],
  ["lstrip", stripStart],
  ["rstrip", stripEnd],
  ["find", (text: string, part: string) => text.indexOf(part)],
] as [string, (text: string, argument: string) => string | number][]);

function stripStart(text: string, chars: string): string {
  let start = 0;
  while (start < text.length && chars.includes(text[start])) start++;
  return text.slice(start);
}

function stripEnd(text: string, chars: string): string {
  let end = text.length;
  while (end > 0 && chars.includes(text[end - 1])) end--;
  return text.slice(0, end);
}

/** Python's range(). */
function boundedRange(start: number, stop?: number, step = 1): number[] {
  const [from, to] = stop === undefined ? [0, start] : [start, stop];
  if (typeof from !== "number" || typeof to !== "number" || typeof step !== "number" || step === 0) {
    throw new Error("range() takes integers and a step other than 0");
  }
  const length = Math.max(0, Math.ceil((to - from) / step));
  if (length > MAX_LIST_LENGTH) throw new LimitError(`range() longer than ${MAX_LIST_LENGTH}`);
  return Array.from({ length }, (_, i) => from + i * step);
}

/** The directives that public templates use. */
function strftime(date: Date, format: string): string {
  const name = (options: Intl.DateTimeFormatOptions) =>
    new Intl.DateTimeFormat("en-US", options).format(date);
  const two = (n: number) => String(n).padStart(2, "0");
  const fields: Record<string, () => string> = {
    Y: () => String(date.getFullYear()),
    m: () => two(date.getMonth() + 1),
    d: () => two(date.getDate()),
    b: () => name({ month: "short" }),
    B: () => name({ month: "long" }),
    a: () => name({ weekday: "short" }),
    A: () => name({ weekday: "long" }),
    H: () => two(date.getHours()),
    M: () => two(date.getMinutes()),
    S: () => two(date.getSeconds()),
    "%": () => "%",
  };
  return format.replace(/%([YmdbBaAHMS%])/g, (_, field: string) => fields[field]());
}

function guarded<T>(run: () => T, what: string): T {
  try {
    return run();
  } catch (cause) {
    const why = cause instanceof LimitError
      ? `over the limit: ${cause.message}`
      : cause instanceof RangeError
      ? "over the limit: nested too deeply or too large"
      : cause instanceof Error
      ? cause.message
      : String(cause);
    throw new OatmillError("invalid_chat_template", `The chat template ${what}${why.slice(0, 500)}`, null, {
      cause,
    });
  }
}
