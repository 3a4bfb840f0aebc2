"""Prints, as JSON, the last logits that transformers computes for some token ids with each model folder given."""

import json
import sys

import torch
from transformers import AutoModelForCausalLM

ids, *folders = sys.argv[1:]
answers = []
for folder in folders:
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, torch_dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    with torch.no_grad():
        logits = model.eval()(torch.tensor([json.loads(ids)])).logits[0, -1]
    answers.append({"missing": sorted(info["missing_keys"]), "logits": logits.tolist()})
json.dump(answers, sys.stdout)
