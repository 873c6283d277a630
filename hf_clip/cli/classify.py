"""`hf-clip classify`: chooses among labels, for each picture, the one that fits best."""

from pathlib import Path

from ..core.errors import InputError
from .output import Printer
from .parsing import Parser, add_shared_settings, open_model, positive_int


def run(arguments: list[str], printer: Printer) -> None:
    settings = _parser().parse_args(arguments)

    from ..data.images import UnreadableImage, read_image
    from ..data.text import check_text
    from ..embeddings.encode import embed_images, embed_prompts, temperature_of
    from ..evaluation.prompts import alike_note, cut_note
    from ..models.loss_hf_clip import score

    labels = _read_labels(settings.labels)
    if len(labels) < 2:
        raise InputError(f"--labels {settings.labels!r} holds {len(labels)}: give two or more to choose among")
    if "{}" not in settings.template:
        raise InputError(f"template {settings.template!r} has no {{}} to put the label in")
    for text, where in [*((label, f"--labels: {label!r}") for label in labels), (settings.template, "--template")]:
        check_text(text, where, "it")
    images, skipped = {}, {}
    for file in settings.images:
        try:
            images[file] = read_image(file)[0]
        except UnreadableImage as error:
            skipped[file] = str(error)
    if not images:
        raise InputError(f"no picture can be read; {settings.images[0]}: {skipped[settings.images[0]]}")
    model, processor = open_model(settings.model)
    texts = [settings.template.replace("{}", label) for label in labels]
    image_embeds = embed_images(model, processor, list(images.values()))
    text_embeds, ids, cut = embed_prompts(model, processor, texts)
    notes = cut_note(texts, cut.tolist(), "labels") + alike_note(labels, ids.tolist())
    logits = score(image_embeds, text_embeds, *temperature_of(model))  # (images, labels)
    independent = model.config.probabilities == "sigmoid"  # it answers for each label alone, not for one among all
    results = [
        {"image": file, "scores": dict(zip(labels, row.tolist(), strict=True))}
        for file, row in zip(images, model.probabilities(logits), strict=True)
    ]
    if settings.json:
        printer.json({"results": results, "skipped": skipped, "independent": independent, "notes": notes})
        return
    rows = []
    for result in results:
        ranked = sorted(result["scores"].items(), key=lambda entry: -entry[1])
        rows += [[result["image"] if place == 0 else "", *entry] for place, entry in enumerate(ranked[: settings.top])]
    printer.table(["picture", "label", "probability (each alone)" if independent else "probability"], rows)
    for note in notes:
        printer.line(note)
    for file, reason in skipped.items():
        printer.line(f"skipped {file}: {reason}")


def _read_labels(value: str) -> list[str]:
    if value.endswith(".txt"):
        try:
            parts = Path(value).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"labels file {value!r} cannot be read: {error}") from error
    else:
        parts = value.split(",")
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _parser() -> Parser:
    parser = Parser("hf-clip classify", description=__doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    add_shared_settings(parser)
    parser.add_argument(
        "--labels", required=True, help="what a picture may show: 'a cat, a dog', or a .txt file with a label a line"
    )
    parser.add_argument("--template", default="{}", help="a sentence around the label, such as 'a photo of {}'")
    parser.add_argument("--top", type=positive_int, default=3, help="labels shown a picture")
    return parser
