/** Something of the server that a page shows: loaded, kept fresh, loaded again when asked. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { type ApiError, getJson } from "./api.ts";

export interface Resource<T> {
  /** The last good answer. */
  readonly data: T | null;
  readonly error: ApiError | null;
  reload(): void;
}

/**
 * @param path null: nothing to load
 * @param options.everyMs loads again so long after each answer while the tab is seen; 0 = never
 */
export function useResource<T>(path: string | null, { everyMs = 0 } = {}): Resource<T> {
  const [state, setState] = useState<{ path: string | null; data: T | null; error: ApiError | null }>({
    path,
    data: null,
    error: null,
  });
  const [turn, setTurn] = useState(0);
  const latest = useRef<T | null>(null);
  useEffect(() => {
    if (path === null) return;
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    latest.current = null;
    const load = async () => {
      if (!document.hidden || latest.current === null) {
        try {
          latest.current = await getJson<T>(path, { signal: abort.signal });
          setState({ path, data: latest.current, error: null });
        } catch (error) {
          if (abort.signal.aborted) return;
          setState({ path, data: latest.current, error: error as ApiError });
        }
      }
      if (everyMs > 0 && !abort.signal.aborted) timer = setTimeout(load, everyMs);
    };
    load();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [path, everyMs, turn]);
  const reload = useCallback(() => setTurn((n) => n + 1), []);
  // An answer to what was asked for before says nothing of what is asked for now.
  const own = state.path === path;
  return { data: own ? state.data : null, error: own ? state.error : null, reload };
}
