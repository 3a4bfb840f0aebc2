/** A part of a Markdown file that a command writes, between two comments, of which the first says by which command. */
import { dirname } from "node:path";
import { OatmillError } from "../errors.ts";

const BLOCK = /^<!-- made by: (.*) -->\n([^]*?)\n<!-- end -->$/m;
/** Of this project's Markdown. */
const LINE_WIDTH = 110;

export interface MarkedBlock {
  readonly command: string;
  readonly text: string;
}

/** @param command what a comment cannot hold is left out of it */
export const markedBlock = (command: string, text: string): string =>
  `<!-- made by: ${command.replaceAll("-->", "").replaceAll(/\s+/g, " ")} -->\n\n${text}\n\n<!-- end -->\n`;

/** The first block of a text; null when it has none. */
export function readBlock(markdown: string): MarkedBlock | null {
  const found = BLOCK.exec(markdown);
  return found && { command: found[1], text: found[2].trim() };
}

/** Words in lines that are not too long, as `deno fmt` breaks them. */
export function wrapped(text: string): string {
  const lines = [""];
  for (const word of text.trim().split(/\s+/)) {
    const last = lines.length - 1, longer = `${lines[last]} ${word}`.trimStart();
    if (longer.length <= LINE_WIDTH) lines[last] = longer;
    else lines.push(word);
  }
  return lines.join("\n");
}

export class MarkdownFile {
  private constructor(readonly path: string, readonly before: string | null) {}

  /**
   * Looks first whether it can be written.
   * @throws {OatmillError} invalid_request: a file without a block, which would be lost
   * @throws {Deno.errors.NotFound} a folder that does not exist
   */
  static async open(path: string): Promise<MarkdownFile> {
    await Deno.stat(dirname(path));
    const before = await Deno.readTextFile(path).catch(() => null);
    if (before !== null && !BLOCK.test(before)) {
      throw new OatmillError(
        "invalid_request",
        `Cannot write to "${path}": it has no table between "<!-- made by: -->" and "<!-- end -->"`,
        "markdown",
      );
    }
    return new MarkdownFile(path, before);
  }
  /** @param block from {@linkcode markedBlock}: in place of the file's own, or as the whole file */
  async write(block: string): Promise<void> {
    const text = this.before?.replace(BLOCK, () => block.trimEnd()) ?? block;
    await Deno.writeTextFile(this.path, text);
  }
}
