/** What can be exported to, and in which types; names only, so that the command line need not load the rest. */
export const EXPORT_FORMATS = ["safetensors", "gguf", "onnx", "peft"] as const;
export type ExportFormat = (typeof EXPORT_FORMATS)[number];

export const EXPORT_TYPES = ["f32", "f16", "bf16", "q8_0"] as const;
export type ExportType = (typeof EXPORT_TYPES)[number];

/** Types of each format, the default first. */
export const TYPES_OF: Readonly<Record<ExportFormat, readonly ExportType[]>> = {
  safetensors: ["f16", "bf16", "f32"],
  gguf: ["f16", "bf16", "f32", "q8_0"],
  onnx: ["f32"],
  peft: ["f32", "f16", "bf16"],
};
