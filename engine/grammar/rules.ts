/** Grammars of several JSON Schemas in one: the rules of each, in xgrammar's EBNF, under names of their own. */

/** A quoted text, a class of characters, or a rule's name. */
const PIECE = /"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|[A-Za-z_]\w*/g;
/** Rules of values that no schema describes. They are the same in every grammar: one copy serves all. */
const SHARED = /^basic_/;

/**
 * The rules of a schema with `name` in place of "root".
 * @param ebnf a rule a line
 */
export function rulesNamed(ebnf: string, name: string): string[] {
  const renamed = (piece: string) => {
    if (piece.startsWith('"') || piece.startsWith("[") || SHARED.test(piece)) return piece;
    return piece === "root" ? name : `${name}_${piece}`;
  };
  return ebnf.replace(PIECE, renamed).split("\n").filter((line) => line !== "");
}
