/** Files and uploads of one data folder, with what they may take together. */
import type { DatabaseSync } from "node:sqlite";
import type { DataFolder } from "./data_folder.ts";
import { FileStorage, type FileStorageOptions } from "./file_storage.ts";
import { freeBytes, StorageQuota } from "./storage_quota.ts";
import { UploadStorage, type UploadStorageOptions } from "./upload_storage.ts";

export interface Storage {
  readonly files: FileStorage;
  readonly uploads: UploadStorage;
  readonly quota: StorageQuota;
}
export interface StorageOptions
  extends
    Omit<FileStorageOptions, "blobs">,
    Pick<UploadStorageOptions, "monotonicMs" | "mostParts" | "retention"> {
  readonly database: DatabaseSync;
  readonly data: DataFolder;
  /** Infinity: only the disk limits. */
  readonly quotaBytes: number;
  /** Of an upload that the disk lost. */
  readonly onLostPart: (id: string) => void;
}

/** Opens them and removes what a crash left. */
export async function openStorage(options: StorageOptions): Promise<Storage> {
  const { database, data, quotaBytes } = options;
  const files = new FileStorage(database, { ...options, blobs: data.blobs });
  const quota: StorageQuota = new StorageQuota({
    maxBytes: quotaBytes,
    used: () => files.rows.totalBytes() + uploads.rows.pendingBytes(),
    free: () => freeBytes(data.root),
  });
  const uploads = new UploadStorage(database, {
    ...options,
    root: data.uploads,
    files,
    quota,
    temporary: () => data.temporary(),
  });
  await files.sweep();
  for (const part of await uploads.sweep()) options.onLostPart(part);
  return { files, uploads, quota };
}
