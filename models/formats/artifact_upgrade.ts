/** Reading what earlier versions wrote. */
import type { WeightFormat } from "../../kernels/layout.ts";
import { toPanels } from "../../kernels/panels.ts";
import type { PackedModel } from "../packed.ts";
import type { ArtifactHeader } from "./artifact_header.ts";

export const NEWEST_FORMAT = 2;

type Load = PackedModel["load"];

/**
 * `load` of an artifact in its header's format, as of the newest one. Format 1 stored groups one after the other, format 2
 * stores panels (kernels/layout.ts): the same bytes in another order.
 */
export function upgradedLoad({ format }: Pick<ArtifactHeader, "format">, load: Load): Load {
  if (format === NEWEST_FORMAT) return load;
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
