/** Small pieces that pages share. */
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { ApiError, bearer, messageOf, request, storedKey } from "./api.ts";

/** What failed, in the server's words; announced. */
export function Failure({ error, retry }: { readonly error: unknown; readonly retry?: () => void }) {
  if (!error) return null;
  const scope = error instanceof ApiError && error.code === "missing_scope";
  return (
    <div class="notice bad" role="alert">
      <p>
        {scope && <strong>This API key may not do that.</strong>} {messageOf(error)}
      </p>
      {retry && <button type="button" onClick={retry}>Try again</button>}
    </div>
  );
}

export const Loading = () => <p class="muted" role="status">Loading…</p>;

/** Label, control and help, tied together. `id` is that of the control. */
export function Field(
  { id, label, help, children }: {
    readonly id: string;
    readonly label: string;
    readonly help?: string;
    readonly children: ComponentChildren;
  },
) {
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children}
      {help && <p class="help" id={`${id}-help`}>{help}</p>}
    </div>
  );
}

export interface DialogProps {
  readonly title: string;
  readonly open: boolean;
  readonly onClose: () => void;
  readonly children: ComponentChildren;
}
/** A modal dialog: the browser keeps the focus inside and gives it back. */
export function Dialog({ title, open, onClose, children }: DialogProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    if (open && !dialog.current!.open) dialog.current!.showModal();
    if (!open) dialog.current!.close();
  }, [open]);
  // The event comes later: the dialog may be open again, for something else.
  const closed = () => dialog.current!.open || onClose();
  return (
    <dialog ref={dialog} aria-label={title} onClose={closed}>
      {open && (
        <>
          <h2>{title}</h2>
          {children}
        </>
      )}
    </dialog>
  );
}

export interface DeleteButtonProps {
  readonly name: string;
  readonly onConfirm: () => Promise<void>;
}
/** Asks before it deletes. */
export function DeleteButton({ name, onConfirm }: DeleteButtonProps) {
  const [open, setOpen] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const confirm = async () => {
    try {
      await onConfirm();
      setOpen(false);
    } catch (caught) {
      setError(caught);
    }
  };
  return (
    <>
      <button type="button" class="quiet danger" onClick={() => (setError(null), setOpen(true))}>
        Delete<span class="sr">{` ${name}`}</span>
      </button>
      <Dialog title={`Delete ${name}?`} open={open} onClose={() => setOpen(false)}>
        <p>
          Its files are removed from the server. This cannot be undone. Requests under way get 30 seconds to
          end.
        </p>
        <Failure error={error} />
        <div class="actions">
          <button type="button" onClick={() => setOpen(false)}>Keep it</button>
          <button type="button" class="danger solid" onClick={confirm}>Delete</button>
        </div>
      </Dialog>
    </>
  );
}

/** A link where the browser can ask by itself; with a key the answer is fetched and handed over. */
export function Download({ path, name }: { readonly path: string; readonly name: string }) {
  const [error, setError] = useState<unknown>(null);
  if (!storedKey()) return <a href={path} download={name}>{name}</a>;
  const save = () => saveFile(path, name).catch(setError);
  return (
    <>
      <button type="button" class="link" onClick={save}>{name}</button>
      <Failure error={error} />
    </>
  );
}

/** Browsers without a picker hold the file in memory for a moment. */
async function saveFile(path: string, name: string): Promise<void> {
  const picker = (globalThis as { showSaveFilePicker?: SaveFilePicker }).showSaveFilePicker;
  const target = await picker?.({ suggestedName: name });
  const response = await request(path, { headers: bearer(storedKey()) });
  if (target) return await response.body!.pipeTo(await target.createWritable());
  const url = URL.createObjectURL(await response.blob());
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  URL.revokeObjectURL(url);
}
/** The File System Access API of Chromium, which TypeScript's library does not have. */
type SaveFilePicker = (o: { suggestedName: string }) => Promise<{
  createWritable(): Promise<WritableStream<Uint8Array>>;
}>;

/** Of a table whose last column holds buttons. @param numbers names of columns that stand to the right */
export function TableHead(
  { columns, numbers }: { readonly columns: readonly string[]; readonly numbers: readonly string[] },
) {
  return (
    <thead>
      <tr>
        {columns.map((name) => (
          <th key={name} scope="col" class={numbers.includes(name) ? "number" : undefined}>{name}</th>
        ))}
        <th scope="col">
          <span class="sr">Actions</span>
        </th>
      </tr>
    </thead>
  );
}

/** Name, value, and what stands small beside it. */
export type Fact = readonly [name: string, value: ComponentChildren, note?: string];

export function Facts({ label, facts }: { readonly label: string; readonly facts: readonly Fact[] }) {
  return (
    <dl class="facts" aria-label={label}>
      {facts.map(([name, value, note]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>
            {value} {note && <small class="muted">{note}</small>}
          </dd>
        </div>
      ))}
    </dl>
  );
}
