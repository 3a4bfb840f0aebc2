/** Which model of which hub: all that can be said before the hub is asked. */
import { OatmillError } from "../errors.ts";

export interface HubAccess {
  /** Where the hub is, without a path: https://huggingface.co, or a mirror. */
  readonly url: string;
  /** Of a user of the hub, for private and gated models. */
  readonly token: string | null;
}
export const DEFAULT_HUB_URL = "https://huggingface.co";

export interface HubReference {
  /** organisation/name */
  readonly repo: string;
  /** Branch, tag or commit. */
  readonly revision?: string;
  /** The .gguf file to take, of several. */
  readonly file?: string;
}

export const DEFAULT_REVISION = "main";

const REPO = /^[A-Za-z0-9][A-Za-z0-9._-]{0,95}\/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$/;
const REVISION = /^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$/;

/** @throws {OatmillError} invalid_request */
export function checkReference({ repo, revision = DEFAULT_REVISION }: HubReference): void {
  const plain = (text: string, form: RegExp) => form.test(text) && !text.includes("..");
  const fail = (what: string, value: string, form: string) =>
    new OatmillError(
      "invalid_request",
      `Cannot pull ${what} ${JSON.stringify(value.slice(0, 100))}: must be ${form}`,
      what === "model" ? "source.hub" : "source.revision",
    );
  if (!plain(repo, REPO)) throw fail("model", repo, "organisation/name");
  if (!plain(revision, REVISION)) throw fail("revision", revision, "a branch, a tag or a commit");
}

/** The hub that the environment names. */
export const hubAccess = (env: { get(name: string): string | undefined }): HubAccess => ({
  url: env.get("OATMILL_HUB_URL") || DEFAULT_HUB_URL,
  token: env.get("HF_TOKEN") || null,
});
