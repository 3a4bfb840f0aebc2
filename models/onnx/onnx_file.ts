/** Whether a file is an ONNX model, by its name: the one thing to know before the reader is loaded. */
export const isOnnxFile = (path: string): boolean => path.toLowerCase().endsWith(".onnx");
