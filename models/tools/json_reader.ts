/** Reads one JSON value (RFC 8259) from a stream of characters, without making anything of it. */
import { type CharStream, isSpace, type Reading } from "./char_stream.ts";

/** Each level takes a few generators. */
export const MOST_LEVELS = 128;
const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
const NUMBER_CHARS = "+-.0123456789eE";
const HEX = /^[0-9a-fA-F]$/;
const ESCAPES = '"\\/bfnrtu';
const WORDS: Readonly<Record<string, string>> = { t: "true", f: "false", n: "null" };

type Taken = (char: string) => void;

/**
 * Goes behind a value; where it is none, to the first character that is wrong.
 * @param taken is told each character
 */
export function* readJson(chars: CharStream, taken: Taken = () => {}, level = 0): Reading<boolean> {
  const first = yield* chars.peek();
  if (first === undefined || level > MOST_LEVELS) return false;
  if (first === '"') return yield* readString(chars, taken);
  if (first === "{" || first === "[") return yield* readMembers(chars, taken, level);
  if (first in WORDS) return yield* readWord(chars, WORDS[first], taken);
  return yield* readNumber(chars, taken);
}

function* readMembers(chars: CharStream, taken: Taken, level: number): Reading<boolean> {
  const object = (yield* chars.peek()) === "{";
  const close = object ? "}" : "]";
  const take = function* (char: string): Reading<boolean> {
    return yield* readWord(chars, char, taken);
  };
  yield* take(object ? "{" : "[");
  yield* readSpace(chars, taken);
  if (yield* take(close)) return true;
  for (;;) {
    if (object && !(yield* readKey(chars, taken))) return false;
    if (!(yield* readJson(chars, taken, level + 1))) return false;
    yield* readSpace(chars, taken);
    if (yield* take(close)) return true;
    if (!(yield* take(","))) return false;
    yield* readSpace(chars, taken);
  }
}

function* readKey(chars: CharStream, taken: Taken): Reading<boolean> {
  if ((yield* chars.peek()) !== '"' || !(yield* readString(chars, taken))) return false;
  yield* readSpace(chars, taken);
  if (!(yield* readWord(chars, ":", taken))) return false;
  yield* readSpace(chars, taken);
  return true;
}

function* readString(chars: CharStream, taken: Taken): Reading<boolean> {
  const take = (char: string) => {
    chars.take();
    taken(char);
  };
  take('"');
  for (;;) {
    const char = yield* chars.peek();
    if (char === undefined || char < " ") return false;
    take(char);
    if (char === '"') return true;
    if (char !== "\\") continue;
    const escaped = yield* chars.peek();
    if (escaped === undefined || !ESCAPES.includes(escaped)) return false;
    take(escaped);
    for (let i = 0; escaped === "u" && i < 4; i++) {
      const digit = yield* chars.peek();
      if (digit === undefined || !HEX.test(digit)) return false;
      take(digit);
    }
  }
}

function* readNumber(chars: CharStream, taken: Taken): Reading<boolean> {
  let number = "";
  for (let c = yield* chars.peek(); c !== undefined && NUMBER_CHARS.includes(c); c = yield* chars.peek()) {
    number += c;
    chars.take();
    taken(c);
  }
  return NUMBER.test(number);
}

/** The characters of `word`, as far as they come. */
function* readWord(chars: CharStream, word: string, taken: Taken): Reading<boolean> {
  for (const char of word) {
    if ((yield* chars.peek()) !== char) return false;
    chars.take();
    taken(char);
  }
  return true;
}

function* readSpace(chars: CharStream, taken: Taken): Reading<void> {
  for (let c = yield* chars.peek(); c !== undefined && isSpace(c); c = yield* chars.peek()) {
    chars.take();
    taken(c);
  }
}
