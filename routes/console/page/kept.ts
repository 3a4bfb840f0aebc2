/** Small notes in the browser's storage. Where it keeps nothing (private windows, a full quota) they live as long as the page. */
type Kind = "localStorage" | "sessionStorage";

const own = new Map<string, string>();
const nameOf = (kind: Kind, name: string): string => `${kind} ${name}`;

export function kept(kind: Kind, name: string): string | null {
  const here = own.get(nameOf(kind, name));
  if (here !== undefined) return here;
  try {
    return globalThis[kind].getItem(name);
  } catch {
    return null;
  }
}

/** @param value null forgets it */
export function keep(kind: Kind, name: string, value: string | null): void {
  own.delete(nameOf(kind, name));
  try {
    if (value === null) globalThis[kind].removeItem(name);
    else globalThis[kind].setItem(name, value);
  } catch {
    if (value !== null) own.set(nameOf(kind, name), value);
  }
}
