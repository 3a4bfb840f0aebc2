/**
 * Our own: OATS's decomposition as a start, under defaults of its own (models/recipe.ts): L takes an eighth of what is
 * kept, entries are chosen anew with X'X (reselect.ts), and each layer's share comes from measured losses.
 */
import type { CompressionMethod } from "./method.ts";
import { oats } from "./oats.ts";

export const oatmill: CompressionMethod = { ...oats, name: "oatmill", needs: () => "moments" };
