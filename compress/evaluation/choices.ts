/**
 * Accuracy on multiple-choice questions: the model takes the choice whose text is likeliest after the question
 * (lm-evaluation-harness's `multiple_choice`). By sum of log-likelihoods (`accuracy`), by mean per token
 * (`accuracyNorm`, as compression-results.md) and by mean per character (`accuracyNormChars`, the harness's `acc_norm`).
 */
import type { Engine } from "../../engine/types.ts";
import type { Tokenizer } from "../../models/tokenizer.ts";
import type { ChoiceQuestion } from "./choice_task.ts";
import { type ScoreOptions, scoreWindows } from "./score_windows.ts";
import { scoredTokens, type TextWindow } from "./text_window.ts";

export interface ChoiceAccuracy {
  readonly accuracy: number;
  readonly accuracyNorm: number;
  readonly accuracyNormChars: number;
  /** Of the three accuracies: sqrt(p (1 - p) / (count - 1)); 0 of a single question. */
  readonly standardError: number;
  readonly standardErrorNorm: number;
  readonly standardErrorNormChars: number;
  readonly count: number;
}

export interface ChoiceModel {
  readonly engine: Pick<Engine, "score" | "contextLength">;
  readonly tokenizer: Pick<Tokenizer, "encode">;
  /** Stands before each question; null: nothing. */
  readonly bos: number | null;
}

/**
 * Questions whose first choices are scored before their others: by then the cache knows what the question begins with
 * (ARC-Easy: 45 % of the rows come from it, 19 % when choices come question by question).
 */
const GROUP = 32;

/** One choice of one question. */
interface Candidate {
  readonly question: number;
  readonly choice: number;
  readonly window: TextWindow;
}

/** @throws {OatmillError} cancelled, what the engine throws */
export async function choiceAccuracy(
  model: ChoiceModel,
  questions: readonly ChoiceQuestion[],
  options: ScoreOptions = {},
): Promise<ChoiceAccuracy> {
  const candidates = inTurns(questions.map((q, i) => candidatesOf(model, q, i)));
  const sums = await scoreWindows(model.engine, candidates.map((c) => c.window), options);
  const scores = questions.map((q) => q.choices.map(() => ({ sum: 0, token: 0, char: 0 })));
  candidates.forEach(({ question, choice, window }, i) => {
    const sum = -sums[i], chars = [...questions[question].choices[choice]].length;
    scores[question][choice] = { sum, token: sum / scoredTokens(window), char: sum / chars };
  });
  const share = (by: "sum" | "token" | "char") =>
    questions.filter((q, i) => likeliest(scores[i].map((s) => s[by])) === q.answer).length / questions.length;
  const count = questions.length;
  const accuracy = share("sum"), accuracyNorm = share("token"), accuracyNormChars = share("char");
  return {
    accuracy,
    accuracyNorm,
    accuracyNormChars,
    standardError: standardError(accuracy, count),
    standardErrorNorm: standardError(accuracyNorm, count),
    standardErrorNormChars: standardError(accuracyNormChars, count),
    count,
  };
}

/**
 * The choice's tokens are those of `context + " " + choice` beyond the context's own, so that tokenizers which mark
 * the beginning of a text do not mark it twice. Too long: the end counts, as much as the model can read.
 */
function candidatesOf(
  { engine, tokenizer, bos }: ChoiceModel,
  q: ChoiceQuestion,
  question: number,
): Candidate[] {
  const encode = (text: string) => [
    ...bos === null ? [] : [bos],
    ...tokenizer.encode(text, { addSpecialTokens: false }),
  ];
  const context = encode(q.context).length;
  return q.choices.map((text, choice) => {
    const whole = encode(`${q.context} ${text}`);
    const ids = whole.slice(-engine.contextLength - 1);
    // At least the last token, also where the choice melts into the context's tokens.
    const first = Math.min(context, whole.length - 1) - (whole.length - ids.length);
    return { question, choice, window: { ids, from: Math.max(0, first - 1) } };
  });
}

/** First choices of a group of questions, then their others: choices of one question in one step could share nothing. */
function inTurns(byQuestion: readonly Candidate[][]): Candidate[] {
  const ordered: Candidate[] = [];
  for (let i = 0; i < byQuestion.length; i += GROUP) {
    const group = byQuestion.slice(i, i + GROUP);
    ordered.push(...group.map(([first]) => first), ...group.flatMap(([, ...others]) => others));
  }
  return ordered;
}

/** The first of the largest. */
const likeliest = (scores: readonly number[]): number => scores.indexOf(Math.max(...scores));

const standardError = (share: number, count: number): number =>
  count > 1 ? Math.sqrt(share * (1 - share) / (count - 1)) : 0;
