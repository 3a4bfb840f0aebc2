/** Which files of a repository a model needs. */
import { OatmillError } from "../errors.ts";
import { uploadKind } from "../store/upload.ts";
import type { HubFile } from "./client.ts";

export interface Choice {
  /** The .gguf file to take, of several. */
  readonly file?: string;
  readonly maxBytes: number;
  readonly maxFiles: number;
}

/**
 * One .gguf file when it is named, or there is nothing else; otherwise the files of a folder with safetensors.
 * @throws {OatmillError} unsupported_format, source_not_found, too_large
 */
export function chooseFiles(files: readonly HubFile[], { file, maxBytes, maxFiles }: Choice): HubFile[] {
  const chosen = file === undefined ? modelFiles(files) : [named(files, file)];
  const bytes = chosen.reduce((sum, f) => sum + f.bytes, 0);
  if (chosen.length > maxFiles) {
    throw new OatmillError("too_large", `Cannot pull the model: ${chosen.length} files, at most ${maxFiles}`);
  }
  if (bytes > maxBytes) {
    throw new OatmillError("too_large", `Cannot pull the model: ${bytes} bytes, at most ${maxBytes}`);
  }
  return chosen;
}

function named(files: readonly HubFile[], name: string): HubFile {
  const found = files.find((f) => f.name === name && kindOf(f) === "gguf");
  if (found) return found;
  throw new OatmillError(
    "source_not_found",
    `Cannot pull the model: it has no .gguf file ${JSON.stringify(name.slice(0, 100))}, ${
      list(ggufs(files))
    }`,
  );
}

function modelFiles(files: readonly HubFile[]): HubFile[] {
  const folder = files.filter((f) => kindOf(f) === "folder");
  const weights = folder.filter(isWeights), gguf = ggufs(files);
  if (weights.length > 0) return withoutCopies(folder);
  if (gguf.length === 1) return gguf;
  const why = gguf.length > 1
    ? `it has several .gguf files, name one of them: ${list(gguf)}`
    : files.some(({ name }) => /\.(bin|pth?)$/.test(name))
    ? "its weights are PyTorch pickles, and reading a pickle runs code; wanted are .safetensors or .gguf files"
    : "it has neither .safetensors nor .gguf files";
  throw new OatmillError("unsupported_format", `Cannot pull the model: ${why}`);
}

/** Some repositories hold the weights twice: as the shards of an index, or `model.safetensors`, and once more otherwise. */
function withoutCopies(folder: readonly HubFile[]): HubFile[] {
  const has = (name: string) => folder.some((f) => f.name === name);
  const wanted = has("model.safetensors.index.json")
    ? /^model-\d+-of-\d+\.safetensors$/
    : has("model.safetensors")
    ? /^model\.safetensors$/
    : /./;
  const copies = folder.filter((f) => isWeights(f) && !wanted.test(f.name));
  const left = folder.filter((f) => !copies.includes(f));
  return left.some(isWeights) ? left : [...folder];
}

const isWeights = ({ name }: HubFile): boolean => name.endsWith(".safetensors");
const ggufs = (files: readonly HubFile[]): HubFile[] => files.filter((f) => kindOf(f) === "gguf");
const list = (files: readonly HubFile[]): string =>
  files.length === 0 ? "none at all" : files.map((f) => f.name).join(", ").slice(0, 1000);

/** How an embedding model pools: the only file that is taken from a folder of the repository. */
const POOLING_FILE = "1_Pooling/config.json";

/** As an upload's name is judged; names that are no plain file names are nothing. */
function kindOf({ name }: HubFile): ReturnType<typeof uploadKind> | null {
  if (name === POOLING_FILE) return "folder";
  try {
    return uploadKind(name);
  } catch {
    return null;
  }
}
