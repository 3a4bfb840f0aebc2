/** From dense weights to the layouts of layout.ts and back. Pure functions, any thread. */

export { type CodeGrid, fromBf16, Q4_GRID, Q8_GRID, quantizeRow } from "./_quantize_row.ts";
export { type CodedMatrix, decode, roundScale, runCount } from "./coded_matrix.ts";
export { packCoded, runColumnsOf } from "./pack_coded.ts";
export { packF32, type PackOptions, packQ4, packQ8 } from "./pack_dense.ts";
export { packWindows, type PackWindowsOptions } from "./pack_windows.ts";
export { unpack, unpackCoded } from "./unpack.ts";
export { assignWindows, slotsNeeded, type WindowOptions } from "./window_matching.ts";
