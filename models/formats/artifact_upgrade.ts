/** Reading what earlier versions wrote. */
import type { WeightFormat } from "../../kernels/layout.ts";
import { toPanels } from "../../kernels/panels.ts";
import type { PackedModel } from "../packed.ts";
import type { ArtifactHeader } from "./artifact_header.ts";

export const NEWEST_FORMAT = 3;

type Load = PackedModel["load"];

/**
 * Do the weights lie as kernels read them? Format 1 stored groups one after the other, format 2 stores panels
 * (kernels/layout.ts): the same bytes in another order. Format 3 may hold windows with halves, which readers of format 2
 * would take for whole slots.
 */
export const asStored = ({ format }: Pick<ArtifactHeader, "format">): boolean => format > 1;

/** `load` of an artifact in its header's format, as of the newest one. */
export function upgradedLoad(header: Pick<ArtifactHeader, "format">, load: Load): Load {
  if (asStored(header)) return load;
  return async (destination) => {
    const filled: (() => void)[] = [];
    await load((entry) => {
      const bytes = destination(entry);
      const { format, shape } = entry;
      if (format.kind !== "vector") filled.push(() => reorder(format, [shape[0], shape[1]], bytes));
      return bytes;
    });
    for (const upgrade of filled) upgrade();
  };
}

function reorder(format: WeightFormat, shape: readonly [number, number], bytes: Uint8Array): void {
  toPanels(format, shape, bytes.slice(), bytes);
}
