/** The console: one page, its parts chosen by what stands behind the # of the address. */
import { type ComponentType, render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { CompressPage } from "./compress_page.tsx";
import { JobPage } from "./job_page.tsx";
import { KeyButton } from "./key.tsx";
import { LoadPage } from "./load_page.tsx";
import { ModelPage } from "./model_page.tsx";
import { ModelsPage } from "./models_page.tsx";
import { PlaygroundPage } from "./playground_page.tsx";
import { StatusPage } from "./status_page.tsx";
import { ThemeSwitch } from "./theme.tsx";

interface Page {
  readonly path: string;
  readonly title: string;
  readonly view: ComponentType;
  /** Of the one thing that the rest of the path names. */
  readonly one?: ComponentType<{ readonly id: string }>;
}
const PAGES: readonly Page[] = [
  { path: "models", title: "Models", view: ModelsPage, one: ModelPage },
  { path: "compress", title: "Compress", view: CompressPage, one: JobPage },
  { path: "playground", title: "Playground", view: PlaygroundPage },
  { path: "load", title: "Load", view: LoadPage },
  { path: "status", title: "Status", view: StatusPage },
];

function useHash(): string {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const changed = () => setHash(location.hash);
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return hash;
}

function Console() {
  const [path, ...rest] = useHash().replace(/^#\/?/, "").split("/");
  const page = PAGES.find((p) => p.path === path) ?? PAGES[0];
  const id = page.one && rest.length > 0 ? decodeURIComponent(rest.join("/")) : null;
  const title = id ?? page.title;
  const main = useRef<HTMLElement>(null);
  const shown = useRef(title);
  useEffect(() => {
    document.title = `${title} – Oatmill`;
    // Whoever follows a link with the keyboard or a reader begins at what it led to.
    if (shown.current !== title) main.current?.focus();
    shown.current = title;
  }, [title]);
  const { view: View, one: One } = page;
  return (
    <>
      <a class="skip" href="#main" onClick={(e) => (e.preventDefault(), main.current?.focus())}>
        Skip to content
      </a>
      <header>
        <a class="brand" href="#/models">
          <img src="/console/icon.svg" alt="" width="22" height="22" />
          Oatmill
        </a>
        <nav aria-label="Pages">
          {PAGES.map((p) => (
            <a key={p.path} href={`#/${p.path}`} aria-current={p === page ? "page" : undefined}>{p.title}</a>
          ))}
        </nav>
        <div class="tools">
          <a href="/docs">API</a>
          <KeyButton />
          <ThemeSwitch />
        </div>
      </header>
      <main ref={main} id="main" tabIndex={-1}>
        {One && id !== null ? <One key={id} id={id} /> : <View />}
      </main>
    </>
  );
}

const app = document.getElementById("app")!;
app.replaceChildren();
render(<Console />, app);
