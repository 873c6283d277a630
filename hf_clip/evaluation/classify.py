"""`hf_clip.classify`: chooses among labels, for each image, the one that fits best."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from ..core.errors import InputError
from ..data.images import UnreadableImage, read_image
from ..data.text import check_text
from ..embeddings.encode import embed_images, embed_prompts, temperature_of
from ..models.loss_hf_clip import score
from ..models.trained import TrainedModel, keep_modes, open_trained
from .prompts import alike_note, cut_note

ImageLike = str | Path | Image.Image


@dataclass(frozen=True)
class Classification:
    """How well each label fits one image.

    Args:
        image: as it was given.
        scores: probabilities by label, in the order of the labels.
        independent: whether each label stands alone, as the sigmoid loss has it; else they share a probability of 1.
    """

    image: ImageLike
    scores: dict[str, float]
    independent: bool

    @property
    def label(self) -> str:
        """The one that fits best."""
        return next(iter(self.ranked()))

    def ranked(self) -> dict[str, float]:
        """The scores, the best first."""
        return dict(sorted(self.scores.items(), key=lambda entry: -entry[1]))


@dataclass(eq=False, repr=False)
class Classifications(list[Classification]):
    """The images that could be read, in their order.

    Args:
        skipped: why an image could not be read, by its name, or by its number in what was given.
        notes: what to know of the scores, in sentences.
    """

    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@keep_modes
def classify(
    model: TrainedModel,
    images: ImageLike | Iterable[ImageLike],
    labels: str | Path | Sequence[str],
    *,
    template: str = "{}",
) -> Classifications:
    """Says of images which of some labels fits best.

        for found in hf_clip.classify("my_clip", ["1.jpg", "2.jpg"], ["a cat", "a dog"]):
            print(found.image, found.label, found.scores)

    Args:
        model: a folder, a Hub id, or the pair (model, processor).
        images: files, or PIL images; one or several.
        labels: two or more; a text holds them with commas between, or is the name of a .txt file with one a line.
        template: a sentence around the label, such as "a photo of {}".

    Returns:
        A `Classification` for each image that could be read; the others are its `skipped`.

    Raises:
        InputError: fewer than two labels, a template without {}, no image that can be read.
    """
    labels = read_labels(labels)
    if not isinstance(template, str) or "{}" not in template:
        raise InputError(f"template {template!r} has no {{}} to put the label in")
    for text, where in [*((label, f"labels: {label!r}") for label in labels), (template, "template")]:
        check_text(text, where, "it")
    given = [images] if isinstance(images, str | Path | Image.Image) else list(images)
    read, skipped = _read(given)
    opened, processor = open_trained(model)
    texts = [template.replace("{}", label) for label in labels]
    image_embeds = embed_images(opened, processor, [image for _, image in read])
    text_embeds, ids, cut = embed_prompts(opened, processor, texts)
    logits = score(image_embeds, text_embeds, *temperature_of(opened))  # (images, labels)
    independent = opened.config.probabilities == "sigmoid"  # it answers for each label alone, not for one among all
    found = Classifications(skipped, cut_note(texts, cut.tolist(), "labels") + alike_note(labels, ids.tolist()))
    for (image, _), row in zip(read, opened.probabilities(logits).tolist(), strict=True):
        found.append(Classification(image, dict(zip(labels, row, strict=True)), independent))
    return found


def _read(images: Sequence[ImageLike]) -> tuple[list[tuple[ImageLike, Image.Image]], dict[str, str]]:
    """(images as they were given and as they are read, why each of the others could not be)."""
    read: list[tuple[ImageLike, Image.Image]] = []
    skipped: dict[str, str] = {}
    for number, image in enumerate(images, start=1):
        try:
            read.append((image, read_image(str(image) if isinstance(image, Path) else image)[0]))
        except UnreadableImage as error:
            skipped[f"image {number}" if isinstance(image, Image.Image) else str(image)] = str(error)
    if not read:
        first = "; {}: {}".format(*next(iter(skipped.items()))) if skipped else ": none is given"
        raise InputError(f"no image can be read{first}")
    return read, skipped


def read_labels(labels: str | Path | Sequence[str]) -> list[str]:
    """Each once, in their order.

    Raises:
        InputError: fewer than two; what is no text; a file that cannot be read.
    """
    if isinstance(labels, Path) or (isinstance(labels, str) and labels.endswith(".txt")):
        try:
            parts: Sequence[str] = Path(labels).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"labels file {str(labels)!r} cannot be read: {error}") from error
    else:
        parts = labels.split(",") if isinstance(labels, str) else labels
    for part in parts:
        if not isinstance(part, str):
            raise InputError(f"labels: {part!r} is no text: give each label as one")
    found = list(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if len(found) < 2:
        shown = repr(str(labels)) if isinstance(labels, str | Path) else str(list(labels))
        raise InputError(f"labels {shown} holds {len(found)}: give two or more to choose among")
    return found
