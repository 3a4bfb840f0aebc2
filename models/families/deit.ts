/** DeiT with distillation: a ViT with a second token, whose classifier learned from a teacher's answers. */
import type { Family } from "./family.ts";
import { VIT_NAMES } from "./names.ts";
import { vit } from "./vit.ts";

export const deit: Family = {
  ...vit,
  name: "deit",
  models: "DeiT, distilled",
  modelTypes: ["deit"],
  architectures: ["DeiTForImageClassificationWithTeacher", "DeiTForImageClassification", "DeiTModel"],
  encoder: {
    reads: "images",
    distillation: true,
    pooling: "cls",
    classifiers: {
      DeiTForImageClassificationWithTeacher: "cls_and_distillation",
      DeiTForImageClassification: "cls",
    },
  },
  variants: [{
    when: { architectures: "DeiTForImageClassificationWithTeacher" },
    then: {
      names: {
        ...VIT_NAMES,
        prefixes: ["deit.", ""],
        encoder: {
          ...VIT_NAMES.encoder,
          classifier: { tensor: "cls_classifier", bare: true },
          distillationClassifier: { tensor: "distillation_classifier", bare: true },
        },
      },
    },
  }],
  names: { ...VIT_NAMES, prefixes: ["deit.", ""] },
};
