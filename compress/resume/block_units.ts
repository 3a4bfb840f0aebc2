/** Blocks that are in the artifact, as a later run finds them. */
import type { LayerReport } from "../../models/formats/artifact_header.ts";
import type { WriterMark } from "../../models/formats/artifact_writer.ts";
import type { BlockInsight } from "../insight/collector.ts";
import type { PrunedState } from "../structured/block_pruning.ts";
import type { Journal } from "./journal.ts";
import { SavedStreams } from "./streams.ts";

export interface BlockUnit {
  /** Its tensors; before the first block's also those that stand before the blocks. */
  readonly mark: WriterMark;
  readonly layers: readonly LayerReport[];
  readonly insight: BlockInsight;
  /** With method `structured`. */
  readonly pruning: PrunedState | null;
}

/** Of the hidden states between blocks that are being compressed. */
export const BLOCK_STREAM = "stream";

const unitName = (block: number): string => `block.${block}`;

export const keepBlock = (journal: Journal, block: number, unit: BlockUnit): Promise<void> =>
  journal.put(unitName(block), unit);

/**
 * The blocks from the first one on that need not be compressed again: with sequential statistics up to where hidden states
 * were kept, which go on through compressed weights that are nowhere any more.
 */
export function keptBlocks(
  journal: Journal,
  { blocks, sequential }: { readonly blocks: number; readonly sequential: boolean },
): BlockUnit[] {
  const position = new SavedStreams({ journal, name: BLOCK_STREAM }).position();
  const most = sequential ? position : blocks, units: BlockUnit[] = [];
  for (let i = 0; i < most; i++) {
    const unit = journal.get<BlockUnit>(unitName(i));
    if (!unit) break;
    units.push(unit);
  }
  if (position <= units.length) return units;
  journal.drop(BLOCK_STREAM); // a damaged unit: the hidden states are behind blocks that are to be made again
  return sequential ? [] : units;
}

/** Forgets the blocks from `first` on. */
export function dropBlocks(journal: Journal, first: number, blocks: number): void {
  for (let i = first; i < blocks; i++) journal.drop(unitName(i));
  if (first === 0) journal.drop(BLOCK_STREAM);
}
