"""Small checkpoints of transformers' own classes, to be carried over, and what they give."""

import json
import math
from pathlib import Path

import numpy as np
import torch
import transformers as t
from conftest import VOCABULARY
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import AutoProcessor

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
WIDER = SIZE | {"hidden_size": 48}
PATCHES = {"image_size": 32, "patch_size": 8}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
# The last of the vocabulary ends a text: so do a CLIP's tokens, of which the old ones take the highest for the end.
WORDS = {"vocab_size": len(VOCABULARY) + 1, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": len(VOCABULARY)}
CAPTIONS = ["cat", "a dog", "the sea and a boat", "q"]


def clip(eos: int = WORDS["eos_token_id"], vision=WIDER, **config) -> t.CLIPModel:
    text = t.CLIPTextConfig(**SIZE, **(WORDS | {"eos_token_id": eos}), max_position_embeddings=24)
    towers = {"text_config": text.to_dict(), "vision_config": t.CLIPVisionConfig(**vision, **PATCHES).to_dict()}
    return random(t.CLIPModel, t.CLIPConfig(**towers, **({"projection_dim": 16} | config)))


def siglip(text=SIZE, positions: int = 64, **config) -> t.SiglipModel:
    text = t.SiglipTextConfig(**text, **WORDS, max_position_embeddings=positions)
    vision = t.SiglipVisionConfig(**SIZE, **PATCHES)
    return random(t.SiglipModel, t.SiglipConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), **config))


def dual(vision: t.PreTrainedConfig, text: t.PreTrainedConfig) -> t.VisionTextDualEncoderModel:
    config = t.VisionTextDualEncoderConfig(
        vision_config=vision.to_dict(), text_config=text.to_dict(), projection_dim=16
    )
    return random(t.VisionTextDualEncoderModel, config)


def vit() -> t.ViTConfig:
    return t.ViTConfig(**WIDER, **STILL, **PATCHES)


def bert() -> t.BertConfig:
    return t.BertConfig(**SIZE, **STILL, vocab_size=WORDS["vocab_size"], max_position_embeddings=40)


def roberta() -> t.RobertaConfig:
    return t.RobertaConfig(**SIZE, **STILL, **WORDS, max_position_embeddings=66)


def random(model_class, config):
    """No weight is as it was initialised: a bias of zero, or a norm's weight of one, may be lost unseen."""
    torch.manual_seed(0)
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.logit_scale.fill_(math.log(150))  # beyond CLIP's cap
        if config.model_type == "siglip":
            model.logit_bias.fill_(-3.25)
    return model.eval()


SOURCES = {
    "clip": clip,
    "clip of the first kind": lambda: clip(eos=2),
    "clip of equal widths": lambda: clip(vision=SIZE, projection_dim=32),
    "siglip": siglip,
    "bert × vit": lambda: dual(vit(), bert()),
    "roberta × clip": lambda: dual(t.CLIPVisionConfig(**WIDER, **PATCHES), roberta()),
    "bert × dinov2": lambda: dual(t.Dinov2Config(**WIDER, **PATCHES, drop_path_rate=0.0), bert()),
}


def make_tokenizer(length: int | None = None, **settings) -> t.PreTrainedTokenizerFast:
    """Knows letters and a few words, and ends a text with a token of its own."""
    words = {token: i for i, token in enumerate([*VOCABULARY[:-4], "cat", "dog", "sea", "boat", "[END]"])}
    plain = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    plain.pre_tokenizer = Whitespace()
    plain.post_processor = TemplateProcessing(
        single="[CLS] $A [END]", special_tokens=[("[CLS]", 2), ("[END]", words["[END]"])]
    )
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[CLS]", "eos_token": "[END]"}
    limit = {} if length is None else {"model_max_length": length}
    return t.PreTrainedTokenizerFast(tokenizer_object=plain, **named, **limit, **settings)


def make_processor(model: t.PreTrainedModel, length: int | None = None) -> t.ProcessorMixin:
    """The processor that its model type has in transformers."""
    kinds = {"clip": t.CLIPProcessor, "siglip": t.SiglipProcessor}
    kind = kinds.get(model.config.model_type, t.VisionTextDualEncoderProcessor)
    pictures = (
        t.SiglipImageProcessor(size={"height": 32, "width": 32})
        if kind is t.SiglipProcessor
        else t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    )
    # SigLIP's give no mask, as those that were published: the padding is read.
    names = {"model_input_names": ["input_ids"]} if kind is t.SiglipProcessor else {}
    return kind(pictures, make_tokenizer(length, **names))


def save(folder: Path, model: t.PreTrainedModel, length: int | None = 20) -> str:
    model.save_pretrained(folder)
    make_processor(model, length).save_pretrained(folder)
    return str(folder)


def edit(folder: str, **changes) -> None:
    file = Path(folder, "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def pictures(count: int = 4) -> list[Image.Image]:
    noise = np.random.default_rng(0)
    return [Image.fromarray(noise.integers(0, 256, (36 + i, 50, 3), dtype=np.uint8)) for i in range(count)]


def their_inputs(folder: str) -> dict[str, torch.Tensor]:
    """As transformers documents it: SigLIP's texts all have the same length."""
    processor = AutoProcessor.from_pretrained(folder)
    padding = "max_length" if isinstance(processor, t.SiglipProcessor) else True
    return dict(processor(images=pictures(), text=CAPTIONS, padding=padding, return_tensors="pt"))


def assert_same(output, expected) -> None:
    for key in ("image_embeds", "text_embeds"):
        torch.testing.assert_close(output[key], expected[key], atol=1e-6, rtol=0, msg=key)
    assert expected.logits_per_image.std() > 1
    scale = float(expected.logits_per_image.abs().max())
    for key in ("logits_per_image", "logits_per_text"):
        torch.testing.assert_close(output[key] / scale, expected[key] / scale, atol=1e-6, rtol=0, msg=key)
