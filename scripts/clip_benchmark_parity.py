"""Gives hf_clip and CLIP_benchmark the same random embeddings, and prints how far apart their figures are.

    pip install -e ".[eval]"
    pip install --no-deps clip-benchmark
    python scripts/clip_benchmark_parity.py

CLIP_benchmark's `evaluate` functions run as they are, on a model that hands out the embeddings. Its own pins clash
with hf_clip's and are not needed for these, hence `--no-deps`. Nothing is downloaded.

Every class has a picture: of one without, CLIP_benchmark counts an average precision of 0, and hf_clip none. No two
scores tie: of equal ones CLIP_benchmark takes whichever comes first, and hf_clip counts them against the model.
"""

import argparse
import contextlib
import io
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval
from torch import Tensor
from torch.nn.functional import normalize
from transformers import BatchEncoding

from hf_clip.embedding import Embeddings
from hf_clip.evaluation.retrieval import evaluate_retrieval
from hf_clip.evaluation.zero_shot import class_embeddings, evaluate_zero_shot

RETRIEVAL_SIZES = ((12, 1), (60, 5), (250, 3))  # pictures, most captions a picture
CLASSIFICATION_SIZES = ((40, 3), (300, 10), (500, 40))  # pictures, classes
KS = (1, 2, 5, 10)
TEMPLATES = ["{c}", "a photo of {c}", "a drawing of {c}"]
DIMENSION, BATCH = 64, 32
LIMIT = 1e-6


class Tokenizer:
    """Of a text: the row of its embedding."""

    model_max_length = 1

    def __init__(self, texts: list[str]):
        self.rows = {text: row for row, text in enumerate(texts)}

    def __call__(self, texts: list[str], **_: Any) -> BatchEncoding:
        return BatchEncoding({"input_ids": torch.tensor([self.rows[text] for text in texts])})


class Given(torch.nn.Module):
    """Hands out embeddings, a picture being its own. Both packages take it for a model."""

    config = SimpleNamespace(text_config=None)
    device = torch.device("cpu")

    def __init__(self, text_embeds: Tensor):
        super().__init__()
        self.text_embeds = text_embeds

    def encode_image(self, images: Tensor) -> Tensor:
        return images

    def encode_text(self, tokens: BatchEncoding) -> Tensor:
        return self.text_embeds[tokens["input_ids"]]

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        return SimpleNamespace(text_embeds=normalize(self.text_embeds[input_ids]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    largest: dict[str, tuple[float, int]] = {}
    for seed in range(seeds):
        for name, difference in differences(seed):
            before, times = largest.get(name, (0.0, 0))
            largest[name] = max(before, difference), times + 1
    for name, (difference, times) in largest.items():
        print(f"{name:32} {difference:8.1e} in {times} comparisons")
    apart = max(difference for difference, _ in largest.values())
    print(f"largest difference: {apart:.1e}, {'above' if apart > LIMIT else 'within'} {LIMIT:.0e}")
    return int(apart > LIMIT)


def differences(seed: int) -> Iterator[tuple[str, float]]:
    """(metric, |hf_clip − CLIP_benchmark|) of every figure that both give."""
    generator = torch.Generator().manual_seed(seed)
    for images, captions in RETRIEVAL_SIZES:
        yield from apart(*retrieval(images, captions, generator))
    for images, classes in CLASSIFICATION_SIZES:
        for several in (False, True):
            yield from apart(*classification(images, classes, several, generator))


def apart(ours: dict[str, float], theirs: dict[str, float]) -> Iterator[tuple[str, float]]:
    if ours.keys() != theirs.keys():
        raise ValueError(f"hf_clip gives {sorted(ours)}, CLIP_benchmark {sorted(theirs)}")
    return ((name, abs(ours[name] - theirs[name])) for name in ours)


def retrieval(images: int, captions: int, generator: torch.Generator) -> tuple[dict[str, float], dict[str, float]]:
    counts = torch.randint(1, captions + 1, (images,), generator=generator)
    text_to_image = torch.arange(images).repeat_interleave(counts)
    image_embeds, text_embeds = pairs(text_to_image, images, generator)
    ks = [k for k in KS if k <= images]
    embeddings = embedded(image_embeds, text_embeds, text_to_image)
    found = evaluate_retrieval(embeddings, ks).metrics
    names = [f"{way}_retrieval_recall@{k}" for way in ("image", "text") for k in ks]

    texts = [str(row) for row in range(len(text_embeds))]
    of_images = [[texts[row] for row in part] for part in torch.arange(len(texts)).split(counts.tolist())]
    batches = [(image_embeds[i : i + BATCH], of_images[i : i + BATCH]) for i in range(0, images, BATCH)]
    with contextlib.redirect_stderr(io.StringIO()):  # bars
        theirs = zeroshot_retrieval.evaluate(
            Given(text_embeds), batches, Tokenizer(texts), "cpu", amp=False, recall_k_list=ks
        )
    return {name: found[name] for name in names}, theirs


def classification(
    images: int, classes: int, several: bool, generator: torch.Generator
) -> tuple[dict[str, float], dict[str, float]]:
    first = torch.cat([torch.arange(classes), torch.randint(classes, (images - classes,), generator=generator)])
    names = [f"class {number}" for number in range(classes)]
    prompts = [template.format(c=name) for name in names for template in TEMPLATES]
    class_vectors, image_embeds = pairs(first, classes, generator)
    text_embeds = class_vectors.repeat_interleave(len(TEMPLATES), 0)
    text_embeds = text_embeds + 0.2 * torch.randn(text_embeds.shape, generator=generator)
    model: Any = Given(text_embeds)
    tokenizer = Tokenizer(prompts)
    labels = first
    if several:
        labels = (torch.rand(images, classes, generator=generator) < 0.1).index_put(
            (torch.arange(images), first), torch.tensor(True)
        )
    embeddings = embedded(image_embeds, text_embeds[:0], torch.arange(0))
    embeddings.labels = labels
    processor: Any = SimpleNamespace(tokenizer=tokenizer, max_text_length=None, text_padding="longest")
    of_classes = class_embeddings(model, processor, [[name] for name in names], TEMPLATES)
    found = evaluate_zero_shot(embeddings, of_classes, torch.tensor([4.6])).metrics
    ours = {
        "acc1": "zero_shot_acc1",
        "acc5": "zero_shot_acc5",
        "mean_per_class_recall": "zero_shot_mean_per_class_recall",
    }
    if several:
        ours = {"mean_average_precision": "zero_shot_map"}

    data = torch.utils.data.TensorDataset(image_embeds, labels)
    data.classes = names
    loader = torch.utils.data.DataLoader(data, BATCH)
    with contextlib.redirect_stderr(io.StringIO()):
        theirs = zeroshot_classification.evaluate(model, loader, tokenizer, names, TEMPLATES, device="cpu", amp=False)
    # It says NaN where hf_clip says nothing.
    theirs = {name: value for name, value in theirs.items() if value == value}
    return {name: found[of] for name, of in ours.items() if of in found}, theirs


def pairs(second_to_first: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(count, dim), (rows, dim), unit length: those that belong together a little more alike."""
    first = torch.randn(count, DIMENSION, generator=generator)
    second = torch.randn(len(second_to_first), DIMENSION, generator=generator) + 0.4 * first[second_to_first]
    return normalize(first), normalize(second)


def embedded(image_embeds: Tensor, text_embeds: Tensor, text_to_image: Tensor) -> Embeddings:
    return Embeddings(
        image_embeds=image_embeds,
        text_embeds=text_embeds,
        image_rows=torch.arange(len(image_embeds)),
        text_to_image=text_to_image,
        image_ids=torch.arange(len(image_embeds)),
        caption_ids=torch.arange(len(text_embeds)),
    )


if __name__ == "__main__":
    sys.exit(main())
