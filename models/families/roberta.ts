/** RoBERTa, XLM-R, CamemBERT: BERT with positions from row 2 on, and a pooler that belongs to the classifier. */
import { bert } from "./bert.ts";
import type { Family } from "./family.ts";

export const roberta: Family = {
  ...bert,
  name: "roberta",
  models: "RoBERTa, XLM-R, CamemBERT: classifiers and embedding models (BGE-M3, multilingual E5)",
  modelTypes: ["roberta", "xlm-roberta", "camembert"],
  architectures: [
    "RobertaForSequenceClassification",
    "RobertaModel",
    "XLMRobertaForSequenceClassification",
    "XLMRobertaModel",
    "CamembertForSequenceClassification",
    "CamembertModel",
  ],
  encoder: {
    ...bert.encoder!,
    classifiers: {
      RobertaForSequenceClassification: "pooler",
      XLMRobertaForSequenceClassification: "pooler",
      CamembertForSequenceClassification: "pooler",
    },
  },
  unusedPositions: 2,
  defaults: { ...bert.defaults, type_vocab_size: 1, max_position_embeddings: 514, rms_norm_eps: 1e-5 },
  requires: { ...bert.requires, pad_token_id: 1 },
  names: {
    ...bert.names,
    prefixes: ["roberta.", ""],
    positions: { tensor: "embeddings.position_embeddings", firstRow: 2 },
    encoder: {
      ...bert.names.encoder,
      pooler: { tensor: "classifier.dense", bare: true },
      classifier: { tensor: "classifier.out_proj", bare: true },
    },
  },
};
