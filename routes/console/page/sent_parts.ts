/**
 * What this browser has sent of files that are not whole on the server yet. A browser may refuse to keep anything (private
 * windows, a full quota): an upload then goes on all the same, and after an interruption begins anew.
 */

export interface Sent {
  readonly upload: string;
  readonly partBytes: number;
  /** Ids, in the file's order. */
  readonly parts: readonly string[];
}
/** What {@linkcode localStorage} is, for tests too. */
export type Memory = Pick<Storage, "getItem" | "setItem" | "removeItem" | "key" | "length">;
export type NamedFile = Pick<File, "name" | "size" | "lastModified">;

const PREFIX = "oatmill-upload ";
/** Unless the server has forgotten it long ago: it keeps uploads for an hour after their last part. */
const KEPT_MS = 24 * 3600_000;

const keyOf = ({ name, size, lastModified }: NamedFile): string => `${PREFIX}${name} ${size} ${lastModified}`;

export class SentParts {
  readonly #memory: () => Memory;
  /** @param memory looked up at each use: a browser may throw even there */
  constructor(memory: () => Memory = () => localStorage) {
    this.#memory = memory;
  }

  recall(file: NamedFile): Sent | null {
    return this.#attempt((memory) => read(memory.getItem(keyOf(file)))) ?? null;
  }
  remember(file: NamedFile, sent: Sent): void {
    const text = JSON.stringify({ ...sent, savedMs: Date.now() });
    this.#attempt((memory) => memory.setItem(keyOf(file), text));
  }
  forget(file: NamedFile): void {
    this.#attempt((memory) => memory.removeItem(keyOf(file)));
  }
  /** Removes what was left behind by uploads that nobody went on with, and what cannot be read. */
  tidy(nowMs = Date.now()): void {
    this.#attempt((memory) => {
      const keys = Array.from({ length: memory.length }, (_, i) => memory.key(i));
      for (const key of keys.filter((k) => k?.startsWith(PREFIX))) {
        const saved = read(memory.getItem(key!));
        if (!saved || nowMs - saved.savedMs > KEPT_MS) memory.removeItem(key!);
      }
    });
  }

  #attempt<T>(use: (memory: Memory) => T): T | undefined {
    try {
      return use(this.#memory());
    } catch {
      return undefined;
    }
  }
}

/** Null for what is none, or was written by a former version of this page. */
function read(text: string | null): (Sent & { readonly savedMs: number }) | null {
  try {
    const sent = JSON.parse(text!);
    return typeof sent.savedMs === "number" && Array.isArray(sent.parts) ? sent : null;
  } catch {
    return null;
  }
}
