/**
 * WikiText as lm-evaluation-harness reads it (its task `wikitext`): the raw file in pages, each undone of the marks that
 * its makers put around punctuation. Words and bytes are counted on the page as it was, so that a perplexity by word
 * does not depend on the detokeniser.
 */
import { unixLines } from "../lines.ts";

/** White space of Python's `re`, which differs from JavaScript's in U+001C..1F, U+0085 and U+FEFF. */
const SPACE = "[\\t-\\r\\x1c- \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const SPACES = new RegExp(`${SPACE}+`);

/** Pages of a raw file: each begins at a line ` = Title = `, and not at those of sections (` = = Section = = `). */
export function wikiPages(text: string): string[] {
  const pages: string[][] = [[]];
  for (const line of unixLines(text).split("\n")) {
    if (isTitle(line)) pages.push([]);
    pages.at(-1)!.push(line);
  }
  return pages.map((lines) => lines.join("\n")).filter((page) => page.trim() !== "");
}

function isTitle(line: string): boolean {
  const heading = line.replaceAll("= = =", "===").replaceAll("= =", "==").trim();
  return heading.startsWith("= ") && heading.endsWith(" =");
}

/** Without the spaces inside a pair of marks. */
const tighten = (open: string, close: string, inside: string): [RegExp, string] => [
  new RegExp(`${open}${SPACE}*(${inside}*?)${SPACE}*${close}`, "g"),
  `${open}$1${close}`.replaceAll("\\", ""),
];

/** The harness's replacements, in its order; a string stands for all places where it occurs. */
const RULES: readonly (readonly [find: string | RegExp, put: string])[] = [
  ["s '", "s'"],
  // Slashes and all: so it stands there. It meets no text, and is kept because the definition has it.
  [/\/' [0-9]\//g, "/'[0-9]/"],
  ...["-", ",", "."].map((mark) => [` @${mark}@ `, mark] as const), // inside numbers and compounds
  ...[":", ";", ".", "!", "?", ","].map((mark) => [` ${mark} `, `${mark} `] as const),
  tighten("\\(", "\\)", "[^\\)]"),
  tighten("\\[", "\\]", "[^\\]]"),
  tighten("\\{", "\\}", "[^}]"),
  tighten('"', '"', '[^"]'),
  tighten("'", "'", "[^']"),
  ...[4, 3, 2].map((n) => [Array(n).fill("=").join(" "), "=".repeat(n)] as const), // headings
  [" \u00b0 ", "\u00b0"],
  [" \n", "\n"],
  ["\n ", "\n"],
  [" N ", " 1 "],
  [" 's", "'s"],
];

/** A page as it would be printed. */
export const detokenize = (page: string): string =>
  RULES.reduce((text, [find, put]) => text.replaceAll(find, put), page);

/** Words of a raw page by the harness's rule: parts between white space, the empty ones at both ends included. */
export const pageWords = (page: string): number => page.split(SPACES).length;

export const pageBytes = (page: string): number => new TextEncoder().encode(page).length;
