/** How full the windows of a packed S are: places that hold a value other than 0, by window and by row's block. */
import { CHUNK, type Shape2, type WeightFormat } from "../../kernels/layout.ts";
import { visitWeights } from "../../kernels/unpack.ts";
import { FILL_BINS, type WindowOccupancy } from "../../models/formats/insight_file.ts";

/** Places and filled ones of each window of one row's block. */
interface Tally {
  readonly places: Int32Array;
  readonly filled: Int32Array;
}

/**
 * @param format of a layer in windows
 * @param bytes as packed, of `shape` `[dOut, dIn]`
 */
export function windowOccupancy(
  format: WeightFormat & { readonly kind: "windows" },
  bytes: Uint8Array,
  shape: Shape2,
): WindowOccupancy {
  const columns = format.blockChunks * CHUNK;
  const tally: Tally = { places: new Int32Array(columns / 8), filled: new Int32Array(columns / 8) };
  const sums = {
    places: 0,
    filled: 0,
    kinds: new Map<string, number[]>(),
    blocks: new Array<number>(FILL_BINS).fill(0),
  };
  let row = 0, block = 0;
  const finish = () => {
    const chunks = Math.min(format.blockChunks, Math.ceil(shape[1] / CHUNK) - block * format.blockChunks);
    addBlock(sums, tally, 4 * chunks);
  };
  visitWeights(format, bytes, shape, (r, column, code, _, window) => {
    const b = Math.floor(column / columns);
    if (r !== row || b !== block) {
      finish();
      [row, block] = [r, b];
    }
    tally.places[window]++;
    if (code !== 0) tally.filled[window]++;
  });
  finish();
  const kinds = [...sums.kinds].map(([kind, windows]) => {
    return { view: kind[0] as "A" | "B", capacity: Number(kind.slice(1)), windows };
  });
  const order = (k: WindowOccupancy["kinds"][number]) => `${k.view}${String(k.capacity).padStart(3)}`;
  return { ...sums, kinds: kinds.sort((a, b) => order(a) < order(b) ? -1 : 1) };
}

type Sums = { places: number; filled: number; kinds: Map<string, number[]>; blocks: number[] };

/** Adds a row's block and empties the tally. @param width windows of each view */
function addBlock(sums: Sums, { places, filled }: Tally, width: number): void {
  let all = 0, used = 0;
  for (let w = 0; w < 2 * width; w++) {
    if (places[w] === 0) continue; // the number of windows leaves some out, and so does the end of a row
    const kind = `${w < width ? "A" : "B"}${places[w]}`;
    let counts = sums.kinds.get(kind);
    if (!counts) sums.kinds.set(kind, counts = new Array<number>(places[w] + 1).fill(0));
    counts[filled[w]]++;
    all += places[w];
    used += filled[w];
  }
  sums.places += all;
  sums.filled += used;
  if (all > 0) sums.blocks[Math.min(FILL_BINS - 1, Math.floor(FILL_BINS * used / all))]++;
  places.fill(0);
  filled.fill(0);
}
