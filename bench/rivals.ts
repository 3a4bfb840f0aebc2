/**
 * What a synthetic model may be compared with: own dense models; at its own rates Wanda (S alone, no L); for encoders ONNX
 * Runtime in f32.
 */
export const RIVALS = ["dense-int8", "dense-int4", "dense-f32", "wanda", "onnxruntime"] as const;
export type Rival = typeof RIVALS[number];
