/** A conversation with one or two models: everybody gets the same question, the answers stream in side by side. */
import { useEffect, useRef, useState } from "preact/hooks";
import { type Answer, continuesText, type Message, type Settings, streamAnswer } from "./answer.ts";
import { messageOf } from "./api.ts";
import { digits, duration } from "./format.ts";
import { Field } from "./parts.tsx";

/** What a model was asked, answered, or failed with. */
interface Turn {
  readonly question: string;
  readonly answer: Answer | null;
  readonly error: string | null;
}
type Turns = Readonly<Record<string, readonly Turn[]>>;

const DEFAULTS: Settings = { temperature: 0.7, top_p: 0.95, max_tokens: 256, seed: null };

export function Conversation({ models }: { readonly models: readonly string[] }) {
  const [turns, setTurns] = useState<Turns>({});
  const [settings, setSettings] = useState(DEFAULTS);
  const [system, setSystem] = useState("");
  const [together, setTogether] = useState(false);
  const [abort, setAbort] = useState<AbortController | null>(null);
  useEffect(() => () => abort?.abort(), [abort]);

  const answer = async (model: string, question: string, signal: AbortSignal) => {
    const past = turns[model] ?? [];
    const show = (turn: Partial<Turn>) =>
      setTurns((all) => ({ ...all, [model]: [...past, { question, answer: null, error: null, ...turn }] }));
    let last: Answer | null = null;
    show({});
    try {
      const messages = toMessages(system, past, question);
      for await (last of streamAnswer({ model, messages, settings, signal })) show({ answer: last });
    } catch (error) {
      show({ answer: last, error: signal.aborted ? "Stopped" : messageOf(error) });
    }
  };
  const send = async (question: string) => {
    const controller = new AbortController();
    setAbort(controller);
    const asked = [...new Set(models)];
    if (together) await Promise.all(asked.map((model) => answer(model, question, controller.signal)));
    else {for (const model of asked) {
        if (!controller.signal.aborted) await answer(model, question, controller.signal);
      }}
    setAbort(null);
  };
  return (
    <div class="playground">
      <div class={models.length > 1 ? "panes two" : "panes"}>
        {models.map((model, i) => (
          <Pane key={i} model={model} turns={turns[model] ?? []} busy={abort !== null} />
        ))}
      </div>
      <Composer
        busy={abort !== null}
        onSend={send}
        onStop={() => abort?.abort()}
        onClear={() => setTurns({})}
      />
      <SettingsForm settings={settings} onChange={setSettings} system={system} onSystem={setSystem} />
      {models.length > 1 && (
        <label class="check">
          <input type="checkbox" checked={together} onChange={(e) => setTogether(e.currentTarget.checked)} />
          Ask both at the same time: they then share the processor, and their speeds say less
        </label>
      )}
    </div>
  );
}

function toMessages(system: string, past: readonly Turn[], question: string): Message[] {
  const messages: Message[] = system.trim() === "" ? [] : [{ role: "system", content: system }];
  for (const { question, answer } of past) {
    if (!answer) continue;
    messages.push({ role: "user", content: question }, { role: "assistant", content: answer.text });
  }
  return [...messages, { role: "user", content: question }];
}

function Pane({ model, turns, busy }: {
  readonly model: string;
  readonly turns: readonly Turn[];
  readonly busy: boolean;
}) {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => box.current?.scrollTo({ top: box.current.scrollHeight }), [turns]);
  return (
    <section class="pane" aria-label={`Conversation with ${model}`}>
      <h2>{model}</h2>
      {turns.length > 0 && continuesText(model) && (
        <p class="help">This model has no chat template: it continues your text.</p>
      )}
      <div ref={box} class="log" role="log" aria-busy={busy} aria-label={`Answers of ${model}`} tabIndex={0}>
        {turns.length === 0 && <p class="muted">Nothing asked yet.</p>}
        {turns.map((turn, i) => <TurnView key={i} turn={turn} />)}
      </div>
    </section>
  );
}

/** All text is text: nothing a model writes becomes markup. */
function TurnView({ turn: { question, answer, error } }: { readonly turn: Turn }) {
  return (
    <article class="turn">
      <p class="question">
        <span class="sr">You:</span>
        {question}
      </p>
      <p class="answer">
        <span class="sr">Answer:</span>
        {answer?.text || (error ? "" : "…")}
      </p>
      {error && <p class="failed">{error}</p>}
      {answer && <Figures answer={answer} />}
    </article>
  );
}

function Figures({ answer: { ttftMs, tokensPerSecond, tokens, finish } }: { readonly answer: Answer }) {
  const figures = [
    ttftMs !== null && `first text after ${duration(ttftMs / 1000)}`,
    tokensPerSecond !== null && `${digits(tokensPerSecond)} tokens/s`,
    tokens !== null && `${tokens} tokens`,
    finish === "length" && "ended at the limit",
  ].filter((figure) => figure !== false);
  return <p class="figures">{figures.join(" · ")}</p>;
}

function Composer({ busy, onSend, onStop, onClear }: {
  readonly busy: boolean;
  readonly onSend: (question: string) => void;
  readonly onStop: () => void;
  readonly onClear: () => void;
}) {
  const [text, setText] = useState("");
  const send = (event: Event) => {
    event.preventDefault();
    if (busy || text.trim() === "") return;
    onSend(text);
    setText("");
  };
  /** Enter sends, Shift and Enter begins a line; not while an input method composes a character. */
  const onKey = (event: KeyboardEvent) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
  };
  return (
    <form class="composer" onSubmit={send}>
      <label class="sr" for="question">Your message</label>
      <textarea
        id="question"
        rows={3}
        placeholder="Your message (Enter sends, Shift+Enter begins a line)"
        value={text}
        onInput={(e) => setText(e.currentTarget.value)}
        onKeyDown={onKey}
      />
      <div class="actions">
        {busy
          ? <button type="button" class="solid" onClick={onStop}>Stop</button>
          : <button type="submit" class="solid" disabled={text.trim() === ""}>Send</button>}
        <button type="button" disabled={busy} onClick={onClear}>Clear</button>
      </div>
    </form>
  );
}

function SettingsForm({ settings, onChange, system, onSystem }: {
  readonly settings: Settings;
  readonly onChange: (settings: Settings) => void;
  readonly system: string;
  readonly onSystem: (text: string) => void;
}) {
  const number = (
    name: keyof Settings,
    label: string,
    limits: { min: number; max?: number; step: number },
  ) => (
    <Field id={`setting-${name}`} label={label}>
      <input
        id={`setting-${name}`}
        type="number"
        {...limits}
        value={settings[name] ?? ""}
        placeholder={name === "seed" ? "random" : undefined}
        onChange={(e) => {
          const { value, valueAsNumber } = e.currentTarget;
          onChange({ ...settings, [name]: value === "" ? DEFAULTS[name] : valueAsNumber });
        }}
      />
    </Field>
  );
  return (
    <details class="settings">
      <summary>Parameters</summary>
      <div class="row">
        {number("temperature", "Temperature", { min: 0, max: 2, step: 0.05 })}
        {number("top_p", "Top p", { min: 0.01, max: 1, step: 0.01 })}
        {number("max_tokens", "Most tokens", { min: 1, step: 1 })}
        {number("seed", "Seed", { min: 0, step: 1 })}
      </div>
      <Field id="system" label="System message">
        <textarea id="system" rows={2} value={system} onInput={(e) => onSystem(e.currentTarget.value)} />
      </Field>
    </details>
  );
}
