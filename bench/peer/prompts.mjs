/** What peers are asked: the prompts of bench/contender.ts, for programs that Deno does not run. */

/** What a decode starts from. */
export const DECODE_PROMPT = 8;

let seed = 1;
const next = (below) => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  // The high bits: the low ones of this generator repeat soon.
  return Math.floor(seed / 2 ** 32 * below);
};

/** New token ids each time, so that no prefix cache knows them. */
export const prompt = (length, vocabSize) => Array.from({ length }, () => 3 + next(vocabSize - 3));

/** Words that every vocabulary of some size has as one token each, with the space before them. */
const WORDS = (
  "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one " +
  "you were her all she there would their we him been has when who will more no if out so said what up its about into " +
  "than them can only other new some could time these two may then do first any my now such like our over man me even"
).split(" ");
/** As above, for a peer that takes text only. */
export const wordPrompt = (words) => Array.from({ length: words }, () => " " + WORDS[next(WORDS.length)]).join("");
