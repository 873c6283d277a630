"""The same towers and captions as hf_clip, open_clip and sentence-transformers have them, each as its makers train."""

import copy
import itertools
import math
import random
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, BertTokenizer, ResNetConfig, ResNetModel

from hf_clip import HFClipModel, HFClipProcessor, HFClipTrainingArguments
from hf_clip.models.image_processors import square_image_processor
from hf_clip.models.infonce_hf_clip import INFONCE
from hf_clip.training.distributed import global_contrastive_loss
from hf_clip.training.parameter_groups import parameter_groups

from .measuring import needs_extra

PROJECTION = 512
# What open_clip's tokenizer pads to unless a model's configuration says otherwise.
OPEN_CLIP_CONTEXT = 77


@dataclass
class Settings:
    """How large and how often.

    Args:
        size: "full", as the targets are meant; "quick", smaller batches; "tiny", towers of a few thousand weights,
            which show that the script works and nothing else.
        precision: "fp32", or "bf16" for autocast.
    """

    device: torch.device
    rounds: int
    size: str = "full"
    precision: str = "fp32"
    workers: int = 2

    def choose(self, full: Any, quick: Any, tiny: Any) -> Any:
        return {"full": full, "quick": quick, "tiny": tiny}[self.size]

    @property
    def batch(self) -> int:
        return self.choose(32, 8, 4)

    @property
    def pixels(self) -> int:
        return self.choose(224, 224, 32)

    @property
    def towers(self) -> str:
        return self.choose("BERT-base × ResNet-50", "BERT-base × ResNet-50", "tiny towers")

    def autocast(self) -> AbstractContextManager:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    @cached_property
    def tokenizer(self) -> BertTokenizer:
        """As many words as BERT's vocabulary has, each of them one token."""
        words = ("".join(letters) for letters in itertools.product("abcdefghijklmnopqrstuvwxyz", repeat=4))
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        vocabulary = [*special, *itertools.islice(words, self.text_config().vocab_size - len(special))]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "vocab.txt")
            file.write_text("\n".join(vocabulary))
            return BertTokenizer(vocab=str(file), model_max_length=512)

    @property
    def processor(self) -> HFClipProcessor:
        return HFClipProcessor(image_processor=square_image_processor(self.pixels), tokenizer=self.tokenizer)

    def text_config(self) -> BertConfig:
        if self.size != "tiny":
            return BertConfig()
        return BertConfig(
            vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
        )

    def vision_config(self) -> ResNetConfig:
        if self.size != "tiny":
            return ResNetConfig()
        return ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], layer_type="basic")

    def captions(self, count: int, seed: int = 0) -> list[str]:
        """Of 8 to 20 tokens, [CLS] and [SEP] among them, 13 on average."""
        draw = random.Random(seed)
        words = [word for word in self.tokenizer.get_vocab() if not word.startswith("[")]
        lengths = [round(draw.triangular(8, 20, 11)) for _ in range(count)]
        return [" ".join(draw.choices(words, k=length - 2)) for length in lengths]


@dataclass
class Batch:
    """The same pairs as each side takes them.

    Args:
        pixels: (batch, 3, height, width).
        tokens: padded to the longest of the batch: hf_clip's and sentence-transformers' way.
        padded: (batch, 77) input_ids: open_clip's way.
    """

    pixels: Tensor
    tokens: dict[str, Tensor]
    padded: Tensor


def make_batches(settings: Settings, count: int = 4, size: int | None = None) -> list[Batch]:
    torch.manual_seed(0)
    size = size or settings.batch
    batches = []
    for seed in range(count):
        captions = settings.captions(size, seed)
        tokens = settings.tokenizer(captions, padding=True, return_tensors="pt")
        padded = settings.tokenizer(
            captions, padding="max_length", max_length=OPEN_CLIP_CONTEXT, truncation=True, return_tensors="pt"
        )
        pixels = torch.randn(size, 3, settings.pixels, settings.pixels)
        batches.append(
            Batch(
                pixels.to(settings.device),
                {name: value.to(settings.device) for name, value in tokens.items()},
                padded["input_ids"].to(settings.device),
            )
        )
    return batches


def make_towers(settings: Settings) -> tuple[ResNetModel, BertModel]:
    """The modules that every side gets a copy of; random weights train as fast as any."""
    torch.manual_seed(0)
    return ResNetModel(settings.vision_config()), BertModel(settings.text_config(), add_pooling_layer=False)


Step = Callable[[Batch], Any]


def in_turn(step: Step, batches: list[Batch]) -> Callable[[], Any]:
    """A step on the next batch, whenever it is called."""
    turn = itertools.cycle(batches)
    return lambda: step(next(turn))


# ---- hf_clip --------------------------------------------------------------------------------------------------------


def our_model(settings: Settings, channels_last: bool = True) -> HFClipModel:
    vision, text = make_towers(settings)
    model = HFClipModel.from_vision_text_pretrained(vision_model=vision, text_model=text, projection_dim=PROJECTION)
    if channels_last:
        model.vision_model.to(memory_format=torch.channels_last)
    return model.to(settings.device)


def our_optimizer(model: nn.Module) -> tuple[torch.optim.Optimizer, HFClipTrainingArguments]:
    """What `HFClipTrainer` makes of its defaults."""
    args = HFClipTrainingArguments(output_dir=tempfile.gettempdir(), use_cpu=True)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, args), lr=args.learning_rate, betas=(args.adam_beta1, args.adam_beta2), fused=True
    )
    return optimizer, args


def our_step(model: HFClipModel, settings: Settings, *, clip: bool = True, compiled: bool = False) -> Step:
    """The Trainer's step without the Trainer: loss, gradients, norm clipped at 1, fused AdamW, temperature capped."""
    optimizer, args = our_optimizer(model)
    called = torch.compile(model) if compiled else model
    parameters = list(model.parameters())
    model.train()

    def step(batch: Batch) -> Tensor:
        with settings.autocast():
            output = called(pixel_values=batch.pixels, **batch.tokens, return_logits=False)
        loss = global_contrastive_loss(output, INFONCE)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(parameters, args.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            model.logit_scale.clamp_(max=model.config.logit_scale_max)
        return loss.detach()

    return step


# ---- open_clip ------------------------------------------------------------------------------------------------------


class _PictureTower(nn.Module):
    """A transformers ResNet where open_clip has a timm one: trunk, average pool, linear projection."""

    def __init__(self, trunk: ResNetModel):
        super().__init__()
        self.trunk = trunk
        self.proj = nn.Linear(trunk.config.hidden_sizes[-1], PROJECTION, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.proj(self.trunk(pixels).pooler_output.flatten(1))

    def lock(self, unlocked_groups: int = 0, freeze_bn_stats: bool = False) -> None:
        """As `TimmModel.lock` does with its defaults."""
        self.trunk.requires_grad_(False)


def open_clip_model(settings: Settings) -> nn.Module:
    """Its `CustomTextCLIP` with its `HFTextEncoder` around the BERT, and the ResNet in place of the image tower."""
    try:
        import open_clip
        from open_clip.hf_model import HFTextEncoder
    except ImportError as error:
        raise needs_extra(error) from error
    vision, text = make_towers(settings)
    small = {"layers": 1, "width": 64}
    model = open_clip.CustomTextCLIP(PROJECTION, {**small, "head_width": 64}, {**small, "heads": 1}, output_dict=True)
    model.visual = _PictureTower(vision)
    model.text = HFTextEncoder(
        "", PROJECTION, config=copy.deepcopy(text.config), pooler_type="mean_pooler", proj_type="linear"
    )
    model.text.transformer = text
    return model.to(settings.device)


def open_clip_step(model: nn.Module, settings: Settings, *, compiled: bool = False) -> Step:
    """One turn of `open_clip_train.train.train_one_epoch` with the defaults of `open_clip_train.params`."""
    from open_clip import ClipLoss

    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    plain = {n for n, p in named if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n}
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in named if n in plain], "weight_decay": 0.0},
            {"params": [p for n, p in named if n not in plain], "weight_decay": 0.2},
        ],
        lr=5e-5,
        betas=(0.9, 0.98),
        eps=1e-6,
    )
    loss_function = ClipLoss(cache_labels=True)
    called = torch.compile(model) if compiled else model
    model.train()

    def step(batch: Batch) -> Tensor:
        optimizer.zero_grad()
        with settings.autocast():
            losses = loss_function(**called(batch.pixels, batch.padded), output_dict=True)
            loss = sum(losses.values())
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        return loss.detach()

    return step


# ---- sentence-transformers ------------------------------------------------------------------------------------------


def sentence_transformers_model(settings: Settings) -> nn.Module:
    """A `Router` over its `Transformer`, `Pooling` and `Dense`, and over the ResNet."""
    try:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Dense, Module, Router, Transformer
        from sentence_transformers.sentence_transformer.modules import Pooling
    except ImportError as error:
        raise needs_extra(error) from error

    class Pictures(Module):
        """A ResNet as a module of a route: sentence-transformers has none of its own."""

        def __init__(self, trunk: ResNetModel):
            super().__init__()
            self.trunk = trunk

        def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
            return features | {"sentence_embedding": self.trunk(features["pixel_values"]).pooler_output.flatten(1)}

        def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
            raise NotImplementedError("a benchmark saves nothing")

    vision, text = make_towers(settings)
    with tempfile.TemporaryDirectory() as folder:
        text.save_pretrained(folder)
        settings.tokenizer.save_pretrained(folder)
        captions = Transformer(folder)

    def dense(width: int) -> Dense:
        return Dense(width, PROJECTION, bias=False, activation_function=nn.Identity())

    router = Router(
        {
            "text": [captions, Pooling(text.config.hidden_size, "mean"), dense(text.config.hidden_size)],
            "image": [Pictures(vision), dense(vision.config.hidden_sizes[-1])],
        },
        route_mappings={(None, "text"): "text", (None, "image"): "image"},
    )
    return SentenceTransformer(modules=[router], device=str(settings.device))


def sentence_transformers_step(model: nn.Module, settings: Settings) -> Step:
    """Its symmetric `MultipleNegativesRankingLoss`, and its trainer's defaults: fused AdamW, norm clipped at 1."""
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    loss_function = MultipleNegativesRankingLoss(
        model, scale=1 / 0.07, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
    )
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=5e-5, fused=True)
    model.train()

    def step(batch: Batch) -> Tensor:
        columns = [
            {**batch.tokens, "modality": "text"},
            {"pixel_values": batch.pixels, "modality": "image"},
        ]
        with settings.autocast():
            loss = loss_function(columns, labels=None)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step
