/**
 * From rows of groups to the panels of layout.ts and back: packers and readers work group by group, kernels read panels.
 */
import {
  CHUNK,
  chunkCount,
  columnParts,
  denseVectors,
  groupBytes,
  groupCount,
  HEADER_BYTES,
  packedBytes,
  ROWS,
  type Shape2,
  type WeightFormat,
  windowSlots,
} from "./layout.ts";

/**
 * Steps of one chunk. The two groups' halves of a slot make whole vectors: so do the indices of a pair of them, the even
 * ones' values and the odd ones'.
 */
function slotSteps({ bits, ...count }: WeightFormat & { kind: "windows" }): number[] {
  const sizes = windowSlots(count).map(({ entries }) => ROWS * entries);
  if (bits === 4) return sizes;
  return sizes.flatMap((size, s) => {
    const half = size < 16;
    if (s % 2 === 1) return half ? [size] : [];
    return half ? [size, size] : [s + 1 < sizes.length ? 48 : 32];
  });
}

/** Bytes of the steps of one group, in order: what a kernel reads of one group before it turns to the other. */
export function groupSteps(format: WeightFormat, dIn: number): number[] {
  const chunks = chunkCount(dIn);
  switch (format.kind) {
    case "f32":
      return new Array(dIn).fill(16);
    case "q8":
    case "q4":
      return Array.from({ length: chunks }, (_, q) => {
        const vectors = denseVectors(format.kind as "q8" | "q4", Math.min(CHUNK, dIn - q * CHUNK));
        return [HEADER_BYTES, ...new Array<number>(vectors).fill(16)];
      }).flat();
    case "windows": {
      const { blockChunks } = format;
      const slots = slotSteps(format);
      return Array.from(
        { length: chunks },
        (_, q) => q % blockChunks === 0 ? [HEADER_BYTES, ...slots] : slots,
      ).flat();
    }
  }
}

/** Copies between the two orders; `toPanel` says which of the two is written. */
function move(format: WeightFormat, shape: Shape2, groups: Uint8Array, panels: Uint8Array, toPanel: boolean) {
  const count = groupCount(shape[0]), rowBytes = groupBytes(format, shape[1]);
  const copy = (at: number, panelAt: number, size: number) => {
    if (toPanel) { for (let i = 0; i < size; i++) panels[panelAt + i] = groups[at + i]; }
    else for (let i = 0; i < size; i++) groups[at + i] = panels[panelAt + i];
  };
  let before = 0; // bytes of a group that lie in earlier parts
  for (const { cols } of columnParts(format, shape[1])) {
    const steps = groupSteps(format, cols), bytes = groupBytes(format, cols);
    let panelAt = count * before;
    for (let g = 0; g < count; g += 2) {
      let at = g * rowBytes + before;
      if (g + 1 === count) {
        copy(at, panelAt, bytes);
        break;
      }
      for (const size of steps) {
        copy(at, panelAt, size);
        copy(at + rowBytes, panelAt + size, size);
        at += size;
        panelAt += 2 * size;
      }
    }
    before += bytes;
  }
}

const check = (format: WeightFormat, shape: Shape2, ...lengths: number[]) => {
  const bytes = packedBytes(format, shape);
  for (const length of lengths) {
    if (length !== bytes) throw new RangeError(`A layer [${shape}] has ${bytes} bytes, not ${length}`);
  }
};

/**
 * @param groups bytes of the layer's groups one after the other
 * @param out where the panels go
 * @throws {RangeError} when a length is not `packedBytes()`
 */
export function toPanels(
  format: WeightFormat,
  shape: Shape2,
  groups: Uint8Array,
  out: Uint8Array,
): Uint8Array {
  check(format, shape, groups.length, out.length);
  move(format, shape, groups, out, true);
  return out;
}

/**
 * Inverse of {@linkcode toPanels}.
 * @throws {RangeError} when the length is not `packedBytes()`
 */
export function fromPanels(format: WeightFormat, shape: Shape2, panels: Uint8Array): Uint8Array {
  check(format, shape, panels.length);
  const groups = new Uint8Array(panels.length);
  move(format, shape, groups, panels, false);
  return groups;
}
