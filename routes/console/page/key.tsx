/** The API key: asked for when the server wants one, kept for this tab, changed when the user likes. */
import { useEffect, useRef, useState } from "preact/hooks";
import { onKeyNeeded, storedKey, storeKey } from "./api.ts";
import { Dialog } from "./parts.tsx";

export function KeyButton() {
  const [why, setWhy] = useState<string | null>(null);
  const answer = useRef<(key: string | null) => void>(() => {});
  useEffect(() =>
    onKeyNeeded((reason) => {
      setWhy(reason);
      return new Promise((done) => answer.current = done);
    }), []);
  const end = (key: string | null) => {
    setWhy(null);
    answer.current(key);
    answer.current = () => {};
  };
  /** By hand: what is on the page was loaded with the old key. */
  const change = () => {
    setWhy("It is kept in this tab until you close it.");
    answer.current = (key) => {
      if (key === null) return;
      storeKey(key);
      location.reload();
    };
  };
  return (
    <>
      <button type="button" class="quiet" onClick={change}>API key{storedKey() ? " ✓" : ""}</button>
      <Dialog title="API key" open={why !== null} onClose={() => why !== null && end(null)}>
        <form onSubmit={(event) => submit(event, end)}>
          <p>{why}</p>
          <label for="api-key">Key</label>
          <input
            id="api-key"
            name="key"
            type="password"
            autocomplete="off"
            spellcheck={false}
            autofocus
            required
          />
          <div class="actions">
            {storedKey() && (
              <button type="button" onClick={() => (storeKey(null), location.reload())}>Forget it</button>
            )}
            <button type="button" onClick={() => end(null)}>Cancel</button>
            <button type="submit" class="solid">Use this key</button>
          </div>
        </form>
      </Dialog>
    </>
  );
}

function submit(event: SubmitEvent, end: (key: string | null) => void): void {
  event.preventDefault();
  const form = event.currentTarget as HTMLFormElement;
  end(String(new FormData(form).get("key")).trim() || null);
}
