/**
 * Text that comes in parts, read by functions that wait in the middle of a word: generators that yield where the text so
 * far ends. What they read does not depend on where the parts end.
 */

/** Yields whenever it needs more text. */
export type Reading<T> = Generator<void, T, void>;

const SPACE = new Set([" ", "\n", "\t", "\r"]);
export const isSpace = (char: string): boolean => SPACE.has(char);

export class CharStream {
  #text = "";
  /** Where `#text` begins in the whole. */
  #from = 0;
  #at = 0;
  #kept = 0;
  #ended = false;

  push(text: string): void {
    this.#text = this.#text.slice(this.#kept - this.#from) + text;
    this.#from = this.#kept;
  }
  end(): void {
    this.#ended = true;
  }

  /** Where the next character stands in the whole. */
  get at(): number {
    return this.#at;
  }
  /** To a place not before the kept one. */
  goTo(place: number): void {
    this.#at = place;
  }
  /** All that was taken is used: nobody goes back before it. */
  keep(): void {
    this.#kept = this.#at;
  }
  /** To where `keep()` was called last. */
  back(): void {
    this.#at = this.#kept;
  }
  /** What was taken since `place`, which is not before the kept one. */
  since(place: number): string {
    return this.#text.slice(place - this.#from, this.#at - this.#from);
  }

  /** The next character, not taken; undefined at the end of the text. */
  *peek(): Reading<string | undefined> {
    while (this.#at - this.#from >= this.#text.length) {
      if (this.#ended) return undefined;
      yield;
    }
    return this.#text[this.#at - this.#from];
  }
  take(): void {
    this.#at++;
  }
  *space(): Reading<void> {
    for (let c = yield* this.peek(); c !== undefined && isSpace(c); c = yield* this.peek()) this.take();
  }
  /** Takes `word` if it comes next, otherwise nothing. */
  *word(word: string): Reading<boolean> {
    const start = this.#at;
    for (const char of word.split("")) {
      if (char !== (yield* this.peek())) {
        this.#at = start;
        return false;
      }
      this.take();
    }
    return true;
  }
  /** Takes the words of `phrase` with any white space before, between and behind them. */
  *phrase(phrase: string): Reading<boolean> {
    for (const word of phrase.split(/\s+/)) {
      yield* this.space();
      if (!(yield* this.word(word))) return false;
    }
    return true;
  }
}
