/** The files that a user drops or chooses: single ones, or those that lie directly in a folder. */

export interface Chosen {
  readonly files: readonly File[];
  /** Of the folder; null for single files, which all were meant. */
  readonly folder: string | null;
}

export async function droppedFiles({ items }: DataTransfer): Promise<Chosen> {
  const entries = [...items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  const [folder] = entries.filter((entry) => entry.isDirectory) as FileSystemDirectoryEntry[];
  const found = folder ? await entriesOf(folder) : entries;
  const files = found.filter((entry) => entry.isFile) as FileSystemFileEntry[];
  return { files: await Promise.all(files.map(fileOf)), folder: folder?.name ?? null };
}

/** Of `<input webkitdirectory>`, which gives the files of all folders below too. */
export function folderFiles(list: FileList): Chosen {
  const paths = [...list].map((file) => ({ file, path: file.webkitRelativePath.split("/") }));
  return {
    files: paths.filter(({ path }) => path.length <= 2).map(({ file }) => file),
    folder: paths[0]?.path[0] ?? null,
  };
}

/** Browsers give at most 100 at a time, and none when there are no more. */
async function entriesOf(folder: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> {
  const reader = folder.createReader(), all: FileSystemEntry[] = [];
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((done, fail) => reader.readEntries(done, fail));
    if (some.length === 0) return all;
    all.push(...some);
  }
}

const fileOf = (entry: FileSystemFileEntry): Promise<File> =>
  new Promise((done, fail) => entry.file(done, fail));

/** A model's name from a folder's or a file's. */
export function modelNameOf({ files, folder }: Chosen): string {
  const stem = folder ?? files[0]?.name.replace(/\.(gguf|onnx|tar\.gz|tgz|tar|zip)$/, "") ?? "";
  return stem.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "").slice(0, 96);
}
