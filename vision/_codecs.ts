/**
 * The decoders: libjpeg (mozjpeg), libwebp and Rust's png as WebAssembly. JPEG and WebP get a fresh instance each time
 * (0.2 ms), so that what a large image took is given back; the PNG module keeps its own. They are loaded by the thread that
 * first decodes: they leave an empty `location` behind them, against which OpenTelemetry's exporters resolve their
 * addresses.
 */
import type { RgbImage } from "./rgb_image.ts";

interface Rgba {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8ClampedArray | Uint16Array;
}
interface Codec {
  decode(bytes: Uint8Array, turn?: boolean): Rgba | null;
}
type Factory = (options: Record<string, unknown>) => Promise<Codec>;

const compiled = new Map<string, Promise<WebAssembly.Module>>();

function codeOf(specifier: string): Promise<WebAssembly.Module> {
  const found = compiled.get(specifier) ??
    Deno.readFile(new URL(specifier)).then((bytes) => WebAssembly.compile(bytes));
  compiled.set(specifier, found);
  return found;
}

/** @param printErr hears what the C library would write to stderr */
async function open(factory: Factory, specifier: string, printErr: (line: string) => void): Promise<Codec> {
  const module = await codeOf(specifier);
  return await factory({
    noInitialRun: true,
    print: printErr,
    printErr,
    instantiateWasm: (imports: WebAssembly.Imports, done: (instance: WebAssembly.Instance) => void) => {
      const instance = new WebAssembly.Instance(module, imports);
      done(instance);
      return instance.exports;
    },
  });
}

/** libjpeg fills up what a truncated file lacks with grey and only warns; here, as in PIL, that is an error. */
const TRUNCATED = /premature end/i;

export async function decodeJpeg(bytes: Uint8Array): Promise<RgbImage> {
  const said: string[] = [];
  const code = import.meta.resolve("@jsquash/jpeg/codec/dec/mozjpeg_dec.wasm");
  const { default: factory } = await import("@jsquash/jpeg/codec/dec/mozjpeg_dec.js");
  const codec = await open(factory as unknown as Factory, code, (line) => said.push(line));
  const image = codec.decode(bytes, false);
  if (!image || said.some((line) => TRUNCATED.test(line))) throw new Error(said.join("; ") || "no image");
  return withoutAlpha(image);
}

export async function decodeWebp(bytes: Uint8Array): Promise<RgbImage> {
  const code = import.meta.resolve("@jsquash/webp/codec/dec/webp_dec.wasm");
  const { default: factory } = await import("@jsquash/webp/codec/dec/webp_dec.js");
  const image = (await open(factory as unknown as Factory, code, () => {})).decode(bytes);
  if (!image) throw new Error("no image");
  return withoutAlpha(image);
}

/** Offset of the bit depth in a file that begins with its signature and IHDR. */
const BIT_DEPTH = 24;

async function openPng() {
  const png = await import("@jsquash/png/codec/pkg/squoosh_png.js");
  await png.default(await codeOf(import.meta.resolve("@jsquash/png/codec/pkg/squoosh_png_bg.wasm")));
  return png;
}

export async function decodePng(bytes: Uint8Array): Promise<RgbImage> {
  const png = await openPng();
  if (bytes[BIT_DEPTH] !== 16) return withoutAlpha(png.decode(bytes));
  const deep = png.decode_rgba16(bytes);
  const image = { width: deep.width, height: deep.height, data: deep.data };
  deep.free();
  return withoutAlpha(image);
}

/** @param rgba `[height, width, 4]` */
export async function encodePng(rgba: Uint8Array, width: number, height: number): Promise<Uint8Array> {
  return (await openPng()).encode(rgba, width, height, 8);
}

/** Of 16 bits the upper 8. */
function withoutAlpha({ width, height, data }: Rgba): RgbImage {
  const shift = data.BYTES_PER_ELEMENT === 2 ? 8 : 0;
  const rgb = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; to < rgb.length; from += 4, to += 3) {
    rgb[to] = data[from] >> shift;
    rgb[to + 1] = data[from + 1] >> shift;
    rgb[to + 2] = data[from + 2] >> shift;
  }
  return { width, height, data: rgb };
}
