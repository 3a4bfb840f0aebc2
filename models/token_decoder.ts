/**
 * Token strings back to text, one token at a time: the `decoder` of a tokenizer.json as bytes per token and a UTF-8
 * assembler. Decoding a whole list is the same code, so streamed and whole text cannot differ.
 */
import { OatmillError } from "../errors.ts";
import { isJsonObject } from "./formats/json_file.ts";
import {
  type Assembler,
  ByteFallbackAssembler,
  LossyAssembler,
  type Piece,
  StrippingAssembler,
} from "./text_assembler.ts";

export type { Assembler, Piece } from "./text_assembler.ts";

export interface TokenDecoder {
  piece(token: string): Piece;
  assembler(): Assembler;
}

const encoder = new TextEncoder();

/**
 * @param config `decoder` of tokenizer.json
 * @throws {OatmillError} invalid_tokenizer for kinds that cannot be decoded token by token
 */
export function tokenDecoder(config: unknown): TokenDecoder {
  if (config === null || config === undefined) return joinDecoder();
  const steps = stepsOf(config);
  if (steps.length === 1 && steps[0].type === "ByteLevel") return byteLevelDecoder();
  return replaceDecoder(steps);
}

/** "Ġ" and its like -> byte (GPT-2's bytes_to_unicode). */
const BYTE_OF_CHAR: ReadonlyMap<string, number> = (() => {
  const map = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    map.set(String.fromCharCode(printable ? byte : next++), byte);
  }
  return map;
})();

function byteLevelDecoder(): TokenDecoder {
  return {
    piece(token) {
      const bytes = Array.from(token, (char) => BYTE_OF_CHAR.get(char) ?? -1);
      // Added tokens may hold other characters: they stand for themselves.
      return { bytes: bytes.includes(-1) ? encoder.encode(token) : Uint8Array.from(bytes), isByte: false };
    },
    assembler: () => new LossyAssembler(),
  };
}

/** Without a decoder, tokens are joined by spaces. */
function joinDecoder(): TokenDecoder {
  return {
    piece: (token) => ({ bytes: encoder.encode(` ${token}`), isByte: false }),
    assembler: () => new StrippingAssembler(new LossyAssembler(), " ", 1),
  };
}

/** Replace steps, byte tokens, and a strip at the start: the SentencePiece-like vocabularies. */
function replaceDecoder(steps: readonly Step[]): TokenDecoder {
  const replacements: [string, string][] = [];
  let byteFallback = false, fused = false, strip: { content: string; start: number } | null = null;
  for (const step of steps) {
    switch (step.type) {
      case "Replace":
        replacements.push([patternString(step), stringField(step, "content")]);
        break;
      case "Metaspace":
        replacements.push([typeof step.replacement === "string" ? step.replacement : "▁", " "]);
        if (step.prepend_scheme !== "never" && step.add_prefix_space !== false) {
          strip = { content: " ", start: 1 };
        }
        break;
      case "ByteFallback":
        byteFallback = true;
        break;
      case "Fuse":
        fused = true;
        break;
      case "Strip": {
        const { start, stop } = step;
        if (!fused || stop !== 0 || typeof start !== "number") {
          throw unsupported("a Strip step at the end of tokens");
        }
        strip = { content: stringField(step, "content"), start };
        break;
      }
      default:
        throw unsupported(`type "${step.type.slice(0, 80)}"`);
    }
  }
  return {
    piece(token) {
      const byte = byteFallback && /^<0x([0-9A-Fa-f]{2})>$/.exec(token);
      if (byte) return { bytes: Uint8Array.of(parseInt(byte[1], 16)), isByte: true };
      return {
        bytes: encoder.encode(replacements.reduce((t, [from, to]) => t.replaceAll(from, to), token)),
        isByte: false,
      };
    },
    assembler() {
      const inner = byteFallback ? new ByteFallbackAssembler() : new LossyAssembler();
      return strip ? new StrippingAssembler(inner, strip.content, strip.start) : inner;
    },
  };
}

type Step = Record<string, unknown> & { readonly type: string };

function stepsOf(config: unknown): Step[] {
  if (!isJsonObject(config) || typeof config.type !== "string") throw unsupported("no type");
  if (config.type !== "Sequence") return [config as Step];
  if (!Array.isArray(config.decoders) || config.decoders.length > 32) {
    throw unsupported("Sequence without a list of steps");
  }
  return config.decoders.map((step) => {
    if (!isJsonObject(step) || typeof step.type !== "string" || step.type === "Sequence") {
      throw unsupported("nested Sequence");
    }
    return step as Step;
  });
}

function patternString(step: Step): string {
  const pattern = step.pattern;
  if (!isJsonObject(pattern) || typeof pattern.String !== "string" || pattern.String === "") {
    throw unsupported("Replace step without a plain pattern");
  }
  return pattern.String;
}

function stringField(step: Step, field: string): string {
  const value = step[field];
  if (typeof value !== "string") throw unsupported(`${step.type} step without ${field}`);
  return value;
}

function unsupported(what: string): OatmillError {
  return new OatmillError(
    "invalid_tokenizer",
    `Cannot use the decoder of tokenizer.json: ${what} is unsupported`,
  );
}
