/** Bytes of tokens into text, held back until characters are whole. */

/** What one token adds to the text. */
export interface Piece {
  readonly bytes: Uint8Array;
  /** A byte token ("<0x0A>"): its neighbours complete the character. */
  readonly isByte: boolean;
}

/** Pieces in, whole characters out. */
export interface Assembler {
  push(piece: Piece): string;
  end(): string;
}

/** Invalid UTF-8 becomes U+FFFD as soon as it is known to be invalid. */
export class LossyAssembler implements Assembler {
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  push({ bytes }: Piece): string {
    return this.#decoder.decode(bytes, { stream: true });
  }
  end(): string {
    return this.#decoder.decode();
  }
}

/** Byte tokens form characters among themselves only; each byte that forms none becomes one U+FFFD. */
export class ByteFallbackAssembler implements Assembler {
  #pending: number[] = [];

  push({ bytes, isByte }: Piece): string {
    if (!isByte) return this.end() + new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
    this.#pending.push(bytes[0]);
    let text = "";
    while (this.#pending.length > 0) {
      const length = characterLength(this.#pending[0]);
      const start = this.#pending.slice(0, length);
      if (length > 0 && start.slice(1).every((byte) => byte >> 6 === 2)) {
        if (start.length < length) break;
        const char = decodeCharacter(start);
        if (char !== null) {
          text += char;
          this.#pending.splice(0, length);
          continue;
        }
      }
      text += "\ufffd";
      this.#pending.shift();
    }
    return text;
  }

  end(): string {
    const text = "\ufffd".repeat(this.#pending.length);
    this.#pending = [];
    return text;
  }
}

/** Drops up to `count` times `content` from the start of the text. */
export class StrippingAssembler implements Assembler {
  #count: number;
  constructor(readonly inner: Assembler, readonly content: string, count: number) {
    this.#count = count;
  }
  push(piece: Piece): string {
    return this.#strip(this.inner.push(piece));
  }
  end(): string {
    return this.#strip(this.inner.end());
  }
  #strip(text: string): string {
    while (this.#count > 0 && text !== "") {
      if (!text.startsWith(this.content)) this.#count = 0;
      else {
        this.#count--;
        text = text.slice(this.content.length);
      }
    }
    return text;
  }
}

/** Bytes of the UTF-8 character that starts with this byte; 0 = none does. */
function characterLength(first: number): number {
  return first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
}

function decodeCharacter(bytes: readonly number[]): string | null {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes));
  } catch {
    return null; // a surrogate, an overlong form
  }
}
