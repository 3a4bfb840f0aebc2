/** What a recovery (training after compression) gave back: from the artifact's header. */
import { digits, duration, integer } from "./format.ts";
import { change } from "./models_page.tsx";
import { type Fact, Facts } from "./parts.tsx";
import type { ArtifactHeader } from "./types.ts";

const STOPPED = {
  tokens: "it went to its end",
  early: "the loss fell no more",
  cancelled: "it was ended; the best so far was kept",
} as const;

export function Recovery({ recovery }: { readonly recovery: NonNullable<ArtifactHeader["recovery"]> }) {
  const { kind, train, tokens, tokensPerSecond, seconds, steps, loss, stopped, perplexity: p } = recovery;
  const perplexities: Fact[] = p
    ? [
      ["Perplexity, dense", digits(p.dense)],
      ["Perplexity, before recovery", digits(p.before), change(p.before / p.dense)],
      ["Perplexity, recovered", digits(p.after), change(p.after / p.dense)],
    ]
    : [];
  const facts: Fact[] = [
    ...perplexities,
    ["Loss on held-out text", `${digits(loss.before)} → ${digits(loss.after)}`],
    ["Trained", `${kind}, ${train}`, `${integer(tokens)} tokens in ${integer(steps)} steps`],
    ["Speed", `${digits(tokensPerSecond)} tokens/s`, duration(seconds)],
    ["Ended because", STOPPED[stopped]],
  ];
  return (
    <section aria-labelledby="recovery">
      <h2 id="recovery">Recovery</h2>
      <Facts label="Recovery" facts={facts} />
    </section>
  );
}
