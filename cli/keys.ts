/** `keys`: the API keys of a data folder; a server that runs sees changes at its next request. */
import { OatmillError } from "../errors.ts";
import { databasePath } from "../store/data_folder.ts";
import { openDatabase } from "../store/database.ts";
import { KeyStore, type StoredKey } from "../store/key_store.ts";
import { note, printResult, table } from "./output.ts";

export interface KeysOptions {
  /** Data folder. */
  readonly data: string;
  readonly json?: boolean;
}
export interface AddKeyOptions extends KeysOptions {
  readonly scopes: readonly string[];
}

async function withKeys<T>(folder: string, use: (keys: KeyStore) => T): Promise<T> {
  await Deno.mkdir(folder, { recursive: true });
  const database = openDatabase(databasePath(folder));
  try {
    return use(new KeyStore(database));
  } finally {
    database.close();
  }
}

/** What programs read: never the hash. */
const shown = ({ id, name, scopes, createdMs, lastUsedDay }: StoredKey) => ({
  id,
  name,
  scopes,
  created: new Date(createdMs).toISOString(),
  last_used: lastUsedDay,
});

export async function addKey(name: string, { data, scopes, json }: AddKeyOptions): Promise<void> {
  if (scopes.length === 0) {
    throw new OatmillError("invalid_request", "Cannot add a key that may do nothing: name a scope");
  }
  const added = await withKeys(data, (keys) => keys.add(name, [...new Set(scopes)]));
  printResult({ ...shown(added), key: added.key }, { json, lines: () => [added.key] });
  if (!json) note(`Key ${added.id} for "${name}" may ${added.scopes.join(", ")}. It is not shown again.`);
}

export async function listKeys({ data, json }: KeysOptions): Promise<void> {
  const rows = (await withKeys(data, (keys) => keys.list())).map(shown);
  printResult(rows, {
    json,
    lines: () =>
      table([
        ["id", "name", "scopes", "created", "last used"],
        ...rows.map((r) => [r.id, r.name, r.scopes.join(","), r.created.slice(0, 10), r.last_used]),
      ]),
  });
}

/** @throws {OatmillError} not_found */
export async function revokeKey(id: string, { data, json }: KeysOptions): Promise<void> {
  if (!await withKeys(data, (keys) => keys.revoke(id))) {
    throw new OatmillError("not_found", `No API key "${id}" in "${data}": \`keys list\` shows them`);
  }
  printResult({ id, revoked: true }, { json, lines: () => [`revoked ${id}`] });
}
