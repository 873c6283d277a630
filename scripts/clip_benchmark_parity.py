"""Gives hf_clip and CLIP_benchmark the same random embeddings, and prints how far apart their figures are.

    pip install -e ".[eval]"
    pip install --no-deps clip-benchmark "numpy<2.4"
    python scripts/clip_benchmark_parity.py

CLIP_benchmark's `evaluate` functions run as they are, on a model that hands out the embeddings. Its own pins clash
with hf_clip's and are not needed for these, hence `--no-deps` and an environment of its own; its accuracy is written
for NumPy before 2.4. Nothing is downloaded. Exit code 1 says that a figure is too far apart.

Every class has a picture: of one without, CLIP_benchmark counts an average precision of 0, and hf_clip none. No right
score ties with a wrong one: CLIP_benchmark takes either first, and hf_clip counts it against the model.
"""

import argparse
import contextlib
import io
import sys
from collections import defaultdict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval
from torch import Generator, Tensor
from torch.nn.functional import normalize
from torch.utils.data import DataLoader, TensorDataset
from transformers import BatchEncoding

from hf_clip.embeddings.encode import Embeddings
from hf_clip.evaluation.tasks.retrieval import evaluate_retrieval
from hf_clip.evaluation.tasks.zero_shot import class_embeddings, evaluate_zero_shot

RETRIEVAL_SIZES = ((12, 1), (60, 5), (250, 3))  # pictures, most captions a picture
CLASSIFICATION_SIZES = ((40, 3), (300, 10), (200, 40))  # pictures, classes
KS = (1, 2, 5, 10)
TEMPLATES = ["{c}", "a photo of {c}", "a drawing of {c}"]
DIMENSION, BATCH = 16, 32
LIMIT = 1e-6
NEAR = 3e-7  # CLIP_benchmark scores in fp32: closer ones may come in either order

Figures = dict[str, float]


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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    apart = defaultdict(list)
    for seed in range(parser.parse_args(arguments).seeds):
        for name, difference in differences(seed):
            apart[name].append(difference)
    for name, found in apart.items():
        print(f"{name:28} {max(found):8.1e} in {len(found)} comparisons")
    largest = max(map(max, apart.values()))
    print(f"largest difference: {largest:.1e}, {'above' if largest > LIMIT else 'within'} {LIMIT:.0e}")
    return int(largest > LIMIT)


def differences(seed: int) -> Iterator[tuple[str, float]]:
    """(metric, |hf_clip − CLIP_benchmark|) of every figure that CLIP_benchmark gives."""
    generator = Generator().manual_seed(seed)
    measured = [retrieval(*size, generator) for size in RETRIEVAL_SIZES]
    for several in (False, True):
        measured += [classification(*size, several, generator) for size in CLASSIFICATION_SIZES]
    for ours, theirs in measured:
        yield from ((name, abs(ours[name] - theirs[name])) for name in theirs)


def retrieval(images: int, captions: int, generator: Generator) -> tuple[Figures, Figures]:
    """What hf_clip and what CLIP_benchmark gives, by CLIP_benchmark's names."""
    counts = torch.randint(1, captions + 1, (images,), generator=generator)
    text_to_image = torch.arange(images).repeat_interleave(counts)
    right = text_to_image[:, None] == torch.arange(images)  # (captions, images)
    tied = True
    while tied:
        image_embeds, text_embeds = pairs(text_to_image, images, generator)
        scores = text_embeds @ image_embeds.T
        tied = ties(scores, right) or ties(scores.T, right.T)
    ks = [k for k in KS if k <= images]
    ours = evaluate_retrieval(embedded(image_embeds, text_embeds, text_to_image), ks).metrics

    texts = [str(row) for row in range(len(text_embeds))]
    of_images = [[texts[row] for row in part] for part in torch.arange(len(texts)).split(counts.tolist())]
    batches = [(image_embeds[i : i + BATCH], of_images[i : i + BATCH]) for i in range(0, images, BATCH)]
    with contextlib.redirect_stderr(io.StringIO()):  # its bars
        theirs = zeroshot_retrieval.evaluate(
            Given(text_embeds), batches, Tokenizer(texts), "cpu", amp=False, recall_k_list=ks
        )
    return ours, theirs


def classification(images: int, classes: int, several: bool, generator: Generator) -> tuple[Figures, Figures]:
    labels = torch.cat([torch.arange(classes), torch.randint(classes, (images - classes,), generator=generator)])
    right = labels[:, None] == torch.arange(classes)  # (pictures, classes)
    if several:
        right |= torch.rand(images, classes, generator=generator) < 0.1
    names = [f"class {number}" for number in range(classes)]
    tokenizer = Tokenizer([template.format(c=name) for name in names for template in TEMPLATES])
    processor: Any = SimpleNamespace(tokenizer=tokenizer, max_text_length=None, text_padding="longest")
    tied = True
    while tied:
        class_vectors, image_embeds = pairs(labels, classes, generator)
        prompt_embeds = class_vectors.repeat_interleave(len(TEMPLATES), 0)
        model: Any = Given(prompt_embeds + 0.2 * torch.randn(prompt_embeds.shape, generator=generator))
        class_embeds = class_embeddings(model, processor, [[name] for name in names], TEMPLATES)
        scores = image_embeds @ class_embeds.T
        tied = ties(scores.T, right.T) if several else ties(scores, right)
    embeddings = embedded(image_embeds, prompt_embeds[:0], torch.arange(0))
    embeddings.labels = right if several else labels
    found = evaluate_zero_shot(embeddings, class_embeds, torch.tensor(100.0).log()).metrics

    data: Any = TensorDataset(image_embeds, embeddings.labels)
    data.classes = names
    with contextlib.redirect_stderr(io.StringIO()):
        theirs = zeroshot_classification.evaluate(
            model, DataLoader(data, BATCH), tokenizer, names, TEMPLATES, "cpu", amp=False
        )
    if classes < 5:
        theirs.pop("acc5", None)  # it says NaN where hf_clip says nothing
    ours = {name.removeprefix("zero_shot_"): value for name, value in found.items()}
    return ours | {"mean_average_precision": ours.get("map")}, theirs


def pairs(second_to_first: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """(count, dim), (rows, dim), unit length: those that belong together are a little more alike."""
    first = torch.randn(count, DIMENSION, generator=generator)
    second = torch.randn(len(second_to_first), DIMENSION, generator=generator) + 0.4 * first[second_to_first]
    return normalize(first), normalize(second)


def ties(scores: Tensor, right: Tensor) -> bool:
    """Whether a query has a right and a wrong candidate that score the same, or nearly; (queries, candidates)."""
    ordered, order = scores.sort(dim=1)
    kinds = right.gather(1, order)
    return bool((ordered.diff(dim=1)[kinds[:, 1:] != kinds[:, :-1]] < NEAR).any())


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
