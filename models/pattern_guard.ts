/** Refuses regular expressions of a tokenizer.json that could backtrack exponentially: encoding runs them on user text. */

/** The longest patterns of public tokenizers have under 2,000 characters. */
const MAX_PATTERN_CHARS = 20_000;

/**
 * Looks for a repeated group that holds a repetition, as in `(a+)+`. Patterns that pass can still take quadratic time.
 * @returns why the pattern is refused, or null
 */
export function patternProblem(source: string): string | null {
  if (source.length > MAX_PATTERN_CHARS) return `pattern of ${source.length} characters is too large`;
  const groups: { repeats: boolean }[] = [{ repeats: false }];
  for (let i = 0; i < source.length; i++) {
    const c = source[i];
    if (c === "\\") i++;
    else if (c === "[") i = classEnd(source, i);
    else if (c === "(") groups.push({ repeats: false });
    else if (c === ")") {
      const group = groups.pop();
      if (!group || groups.length === 0) return "pattern has an unmatched parenthesis";
      const repeated = isRepetition(source, i + 1);
      if (repeated && group.repeats) {
        return "pattern repeats a group that repeats (time could grow exponentially)";
      }
      if (group.repeats) groups[groups.length - 1].repeats = true;
    } else if (isRepetition(source, i)) groups[groups.length - 1].repeats = true;
  }
  return groups.length === 1 ? null : "pattern has an unmatched parenthesis";
}

/** `*`, `+`, or `{n}` with more than a handful of rounds. */
function isRepetition(source: string, at: number): boolean {
  if (source[at] === "*" || source[at] === "+") return at > 0 && !isLazyOrPossessive(source, at);
  const counted = /^\{(\d+)(,(\d*))?\}/.exec(source.slice(at, at + 24));
  if (!counted) return false;
  const most = counted[2] === undefined
    ? Number(counted[1])
    : counted[3] === ""
    ? Infinity
    : Number(counted[3]);
  return most > 8;
}

/** The second character of `*+`, `++`, `?+` repeats nothing by itself. */
function isLazyOrPossessive(source: string, at: number): boolean {
  return source[at] === "+" && "*+?}".includes(source[at - 1]) && source[at - 2] !== "\\";
}

/** Index of the `]` that closes the class opened at `at`; nested classes (Oniguruma) count. */
function classEnd(source: string, at: number): number {
  let depth = 0;
  for (let i = at; i < source.length; i++) {
    if (source[i] === "\\") i++;
    else if (source[i] === "[") depth++;
    else if (source[i] === "]" && --depth === 0) return i;
  }
  return source.length;
}
