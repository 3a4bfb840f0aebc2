/** What a synthetic model may be compared with: own dense models and, at its own rates, Wanda (S alone, no L). */
export const RIVALS = ["dense-int8", "dense-int4", "dense-f32", "wanda"] as const;
export type Rival = typeof RIVALS[number];
