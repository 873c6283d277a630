# How well each label fits a picture, without torch: python example.py picture.png "a cat" "a dog"
import importlib
import json
import sys
from pathlib import Path

import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer


def prepare(rgb, to):
    rgb = rgb.resize(to["size"] or [int(to["shortest_edge"] * s / min(rgb.size)) for s in rgb.size], to["resample"])
    left, top = (int((side - kept) / 2) for side, kept in zip(rgb.size, to["crop"], strict=True))
    pixels = np.asarray(rgb.crop((left, top, left + to["crop"][0], top + to["crop"][1]))) * to["rescale_factor"]
    return ((pixels - to["mean"]) / to["std"]).astype(np.float32).transpose(2, 0, 1)[None]  # (1, 3, height, width)


if __name__ == "__main__":
    folder, (file, *labels) = Path(__file__).parent, sys.argv[1:]
    facts = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    texts = Tokenizer.from_file(str(folder / "tokenizer.json")).encode_batch(labels)
    tokens = {"input_ids": [text.ids for text in texts], "attention_mask": [text.attention_mask for text in texts]}
    sys.path.insert(0, str(folder))
    rgb = importlib.import_module("decoding_hf_clip").decode_image(Path(file).read_bytes())
    text = InferenceSession(folder / "text_model.onnx").run(None, {key: tokens[key] for key in facts["text_inputs"]})
    image = InferenceSession(folder / "vision_model.onnx").run(None, {"pixel_values": prepare(rgb, facts["pixels"])})
    odds = np.exp(facts["exp_logit_scale"] * (text[0] @ image[0][0]).astype(float) + (facts["logit_bias"] or 0))
    odds /= odds.sum() if facts["probabilities"] == "softmax" else 1 + odds  # by the sigmoid each label stands alone
    print(*(f"{chance:.6f}  {label}" for chance, label in zip(odds, labels, strict=True)), sep="\n")
