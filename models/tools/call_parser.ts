/**
 * Finds tool calls in an answer while it comes. Whatever is no call of a known tool goes out as content, so that nothing is
 * lost; what comes out does not depend on where the parts of the text end. White space before a call, and at
 * the end of an answer with calls, is dropped.
 */
import { CharStream, isSpace, type Reading } from "./char_stream.ts";
import { readJson } from "./json_reader.ts";
import type { NamedCall, ToolSyntax } from "./syntax.ts";

export type AnswerPart =
  | { readonly type: "content"; readonly text: string }
  /** A call begins; `index` counts the answer's calls. */
  | { readonly type: "call"; readonly index: number; readonly name: string }
  /** More of the JSON text of the call that began last. */
  | { readonly type: "arguments"; readonly index: number; readonly text: string };

const ARGUMENTS: ReadonlySet<string> = new Set(["arguments", "parameters"]);
/** Keys that may stand before the arguments. */
const BESIDE: ReadonlySet<string> = new Set(["id", "type"]);

export class ToolCallParser {
  readonly #syntax: ToolSyntax;
  /** Longer names first: one may begin another. */
  readonly #names: readonly string[];
  readonly #chars = new CharStream();
  readonly #run: Reading<void>;
  #parts: AnswerPart[] = [];
  /** White space that is content only if content follows. */
  #space = "";
  #calls = 0;
  /** A call may begin without its mark: nothing but white space stands before it, or a call does. */
  #bare: boolean;

  constructor(syntax: ToolSyntax, names: readonly string[]) {
    this.#syntax = syntax;
    this.#names = [...names].sort((a, b) => b.length - a.length);
    this.#bare = syntax.bare === true;
    this.#run = this.#answer();
  }

  /** Calls that began. */
  get calls(): number {
    return this.#calls;
  }
  push(text: string): AnswerPart[] {
    this.#chars.push(text);
    this.#run.next();
    return this.#shown();
  }
  /** The answer is over: what was held back. */
  end(): AnswerPart[] {
    this.#chars.end();
    this.#run.next();
    if (this.#calls === 0 && this.#space !== "") this.#add({ type: "content", text: this.#space });
    return this.#shown();
  }
  #shown(): AnswerPart[] {
    const parts = this.#parts;
    this.#parts = [];
    return parts;
  }

  *#answer(): Reading<void> {
    const chars = this.#chars;
    for (let char = yield* chars.peek(); char !== undefined; char = yield* chars.peek()) {
      chars.keep();
      const calls = this.#calls;
      if (yield* this.#group()) continue;
      chars.back(); // behind what a call that went wrong in its middle has already given
      if (this.#calls === calls) this.#content(char);
    }
  }

  #content(char: string): void {
    this.#chars.take();
    if (isSpace(char)) {
      this.#space += char;
      return;
    }
    this.#bare = false;
    this.#add({ type: "content", text: this.#space + char });
    this.#space = "";
  }

  /** Parts of one kind that follow each other are one. */
  #add(part: AnswerPart): void {
    const last = this.#parts.at(-1);
    if (last?.type === part.type && last.type !== "call" && part.type !== "call") {
      this.#parts[this.#parts.length - 1] = { ...last, text: last.text + part.text };
    } else this.#parts.push(part);
  }

  /** A group of calls; goes behind as much of it as there is. */
  *#group(): Reading<boolean> {
    const { begin, list, separator, end } = this.#syntax, chars = this.#chars;
    if (!(yield* chars.word(begin)) && !this.#bare) return false;
    yield* chars.space();
    const listed = list !== undefined && (yield* chars.word(list.open));
    for (let first = true;; first = false) {
      yield* chars.space();
      const calls = this.#calls;
      if (!(yield* this.#call())) {
        if (first || this.#calls > calls) return false;
        break;
      }
      chars.keep();
      if (separator === undefined || !(yield* chars.phrase(separator))) break;
    }
    chars.back();
    if (!listed || (yield* this.#closes(list!.close))) yield* this.#closes(end);
    this.#bare = this.#syntax.bare === true;
    return true;
  }
  *#closes(mark: string): Reading<boolean> {
    if (mark === "") return true;
    const found = yield* this.#chars.phrase(mark);
    if (found) this.#chars.keep();
    else this.#chars.back();
    return found;
  }

  *#call(): Reading<boolean> {
    const { call } = this.#syntax;
    return yield* call.kind === "named" ? this.#named(call) : this.#object();
  }

  *#named({ before, between, after }: NamedCall): Reading<boolean> {
    if (!(yield* this.#chars.phrase(before))) return false;
    const name = yield* this.#name(between);
    if (name === null) return false;
    yield* this.#chars.space();
    if (!(yield* this.#arguments(name))) return false;
    yield* this.#closes(after);
    return true;
  }

  *#object(): Reading<boolean> {
    const chars = this.#chars;
    if (!(yield* chars.word("{"))) return false;
    let name: string | null = null, early: string | null = null, begun = false;
    do {
      const key = yield* this.#key();
      if (key === "name" && name === null) {
        name = (yield* chars.word('"')) ? yield* this.#name('"') : null;
        if (name === null) return false;
      } else if (ARGUMENTS.has(key ?? "") && !begun && early === null) {
        if (name === null) early = yield* this.#value();
        else begun = yield* this.#arguments(name);
        if (!begun && early === null) return false;
      } else if (key === null || !(begun || BESIDE.has(key)) || !(yield* readJson(chars))) return false;
    } while (yield* chars.phrase(","));
    if (!(yield* chars.phrase("}")) || name === null) return false;
    return begun || this.#begin(name, early ?? "{}");
  }
  *#key(): Reading<string | null> {
    yield* this.#chars.space();
    if ((yield* this.#chars.peek()) !== '"') return null;
    const text = yield* this.#value();
    if (text === null || !(yield* this.#chars.phrase(":"))) return null;
    yield* this.#chars.space();
    return JSON.parse(text);
  }

  /** The JSON text of a value; null: it is none. */
  *#value(): Reading<string | null> {
    yield* this.#chars.space();
    const place = this.#chars.at;
    return (yield* readJson(this.#chars)) ? this.#chars.since(place) : null;
  }

  /** One of the known names, and `behind` it. */
  *#name(behind: string): Reading<string | null> {
    const place = this.#chars.at;
    for (const name of this.#names) {
      if ((yield* this.#chars.word(name)) && (yield* this.#chars.phrase(behind))) return name;
      this.#chars.goTo(place);
    }
    return null;
  }

  /** Arguments that are an object go out as they come. */
  *#arguments(name: string): Reading<boolean> {
    const chars = this.#chars;
    yield* chars.space();
    if ((yield* chars.peek()) !== "{") {
      const text = yield* this.#value();
      return text !== null && this.#begin(name, text);
    }
    this.#begin(name, "");
    const index = this.#calls - 1;
    return yield* readJson(chars, (text) => {
      this.#add({ type: "arguments", index, text });
      chars.keep();
    });
  }

  /** @returns false when `value` is the text of no arguments */
  #begin(name: string, value: string): boolean {
    const text = value === "" ? "" : objectText(JSON.parse(value), value);
    if (text === null) return false;
    const index = this.#calls++;
    this.#space = "";
    this.#chars.keep();
    this.#add({ type: "call", index, name });
    if (text !== "") this.#add({ type: "arguments", index, text });
    return true;
  }
}

/** Some models write the arguments as a text that holds JSON, or null for none. */
function objectText(value: unknown, text: string): string | null {
  if (value === null) return "{}";
  if (typeof value === "object") return Array.isArray(value) ? null : text;
  if (typeof value !== "string") return null;
  try {
    const inner = JSON.parse(value);
    return typeof inner === "object" ? objectText(inner, value) : null;
  } catch {
    return null;
  }
}
