/** Compress: a model of Hugging Face, or of the mirror that the server asks, in place of files. */
import { Field } from "./parts.tsx";

export interface HubSource {
  /** organisation/name */
  readonly repo: string;
  readonly revision: string;
  readonly file: string;
}
export const NO_HUB: HubSource = { repo: "", revision: "", file: "" };

/** As POST /v1/models has it. */
export const hubBody = ({ repo, revision, file }: HubSource) => ({
  hub: repo,
  ...revision ? { revision } : {},
  ...file ? { file } : {},
});

/** Pasted addresses have more than the name. */
const repoOf = (text: string): string => text.trim().replace(/^(https:\/\/huggingface\.co\/|hf:)/, "");

interface HubFieldsProps {
  readonly hub: HubSource;
  readonly onChange: (hub: HubSource) => void;
  readonly disabled: boolean;
}
export function HubFields({ hub, onChange, disabled }: HubFieldsProps) {
  return (
    <fieldset class="hub" disabled={disabled}>
      <legend>Or have the server fetch one from Hugging Face</legend>
      <Field id="hub" label="Model" help="As in HuggingFaceTB/SmolLM2-135M-Instruct.">
        <input
          id="hub"
          value={hub.repo}
          autocomplete="off"
          spellcheck={false}
          maxLength={200}
          aria-describedby="hub-help"
          onInput={(e) => onChange({ ...hub, repo: repoOf(e.currentTarget.value) })}
        />
      </Field>
      {hub.repo && (
        <div class="row">
          <Field id="revision" label="Branch, tag or commit">
            <input
              id="revision"
              value={hub.revision}
              placeholder="main"
              onInput={(e) => onChange({ ...hub, revision: e.currentTarget.value.trim() })}
            />
          </Field>
          <Field id="hub-file" label="File, of several .gguf">
            <input
              id="hub-file"
              value={hub.file}
              onInput={(e) => onChange({ ...hub, file: e.currentTarget.value.trim() })}
            />
          </Field>
        </div>
      )}
    </fieldset>
  );
}
