"""`hf-clip analyze`: what a model says of a data set: word pairs, agreement, likely mislabelled rows, outliers."""

import argparse
import csv
import importlib.util
import json
import re
from collections.abc import Sequence
from math import isnan, nan
from pathlib import Path
from typing import Any

from ..errors import InputError
from .output import Printer
from .parsing import Parser, add_data_settings, add_shared_settings, open_data, open_model, positive_int

EXTREMES = 6  # pictures named at either end of a word pair
_PAIR_HEADER = ["word pair", "mean", "above ½"]


def run(arguments: list[str], printer: Printer) -> None:
    settings = _parser().parse_args(arguments)
    pairs = _read_pairs(settings.pairs or [])
    folder = Path(settings.output)
    _prepare(folder)

    from ..embedding import embed_texts
    from ..evaluation.analysis import Rows, analyze

    source, embeddings, model, processor = _embed(settings)
    prompts = [prompt for pair in pairs for prompt in pair]
    pair_embeds = embed_texts(model, processor, prompts).unflatten(0, (-1, 2)) if pairs else None
    logit_scale = model.logit_scale.detach().cpu()
    outcome = analyze(embeddings, pair_embeds, logit_scale, device=model.device, progress=True)
    rows = Rows(source, embeddings)
    report = _report(settings, pairs, outcome, rows)
    if source and importlib.util.find_spec("matplotlib"):
        report["pictures"] = _draw(folder, pairs, outcome, rows)
    elif source:
        report["notes"].append("No pictures were drawn: matplotlib is not installed (pip install matplotlib).")
    _write(folder, pairs, outcome, rows, report)
    if settings.json:
        printer.json(report)
    else:
        _print(printer, folder, report)


def _embed(settings: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """(source, embeddings, model, processor) of a data set; of a folder that `hf-clip embed` wrote, without source."""
    from ..embedding import embed_source
    from ..embedding_store import MANIFEST, check_made_by, open_embeddings

    if Path(settings.data, MANIFEST).is_file():
        embeddings = open_embeddings(settings.data)
        model, processor = open_model(settings.model)
        check_made_by(model, settings.data)
        return None, embeddings, model, processor
    source = open_data(settings, captions_required=False)
    model, processor = open_model(settings.model)
    embeddings = embed_source(
        model,
        processor,
        source,
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        strict=settings.strict,
    )
    return source, embeddings, model, processor


# ---- what was asked for -------------------------------------------------------------------------------------------


def _read_pairs(values: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of opposite prompts, each once.

    Raises:
        InputError: a pair without two different sides, with the line of its file.
    """
    pairs = []
    for value in values:
        if value.endswith(".txt"):
            pairs += [_pair(line, f"{value}: line {number}: ") for number, line in _lines(value)]
        else:
            pairs.append(_pair(value, "--pairs "))
    return list(dict.fromkeys(pairs))


def _lines(file: str) -> list[tuple[int, str]]:
    """(number, line) of those that are not empty."""
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"pairs file {file!r} cannot be read: {error}") from error
    found = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise InputError(f"pairs file {file!r} is empty: write a pair a line, such as 'a happy face / a sad face'")
    return found


def _pair(text: str, where: str) -> tuple[str, str]:
    sides = [side.strip() for side in text.split("/")]
    if len(sides) != 2 or not all(sides) or sides[0] == sides[1]:
        raise InputError(
            f"{where}{text.strip()!r} is not two opposites with one / between them, such as "
            "'a happy face / a sad face'"
        )
    return sides[0], sides[1]


def _prepare(folder: Path) -> None:
    """Finds out what stands in the way of writing before the work of embedding, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder} is no folder that can be made: {error.strerror}") from error


# ---- what was found -----------------------------------------------------------------------------------------------


def _report(settings: argparse.Namespace, pairs: Sequence[tuple[str, str]], outcome: Any, rows: Any) -> dict[str, Any]:
    from ..embedding_store import public_name

    details = outcome.details
    listed = min(settings.top, len(details.get("mislabelled", ())))
    return {
        "model": public_name(settings.model),
        "data": public_name(settings.data),
        "metrics": outcome.metrics,
        "word_pairs": [
            {
                "pair": list(pair),
                "mean": outcome.metrics[f"word_pair_{number + 1}_mean"],
                "above_half": outcome.metrics[f"word_pair_{number + 1}_above_half"],
                "highest": _extremes(outcome, rows, number, slice(EXTREMES)),
                "lowest": _extremes(outcome, rows, number, slice(None, -EXTREMES - 1, -1)),
            }
            for number, pair in enumerate(pairs)
        ],
        "mislabelled": [_suspect(outcome, rows, place) for place in range(listed)],
        "outliers": [
            _picture(rows, image) | {"neighbour_cosine": float(details["neighbour_cosine"][image])}
            for image in details["outliers"][: settings.top]
        ],
        "protocol": outcome.protocol,
        "notes": outcome.notes,
        "pictures": [],
        "skipped": [list(entry) for entry in rows.embeddings.skipped],
    }


def _picture(rows: Any, image: int) -> dict[str, Any]:
    return {"row": rows.row(image)} | ({"picture": rows.name(image)} if rows.source else {})


def _extremes(outcome: Any, rows: Any, number: int, which: slice) -> list[dict[str, Any]]:
    images, scores = outcome.details["word_pair_order"][which, number], outcome.details["word_pairs"][:, number]
    return [_picture(rows, image) | {"score": float(scores[image])} for image in images]


def _suspect(outcome: Any, rows: Any, place: int) -> dict[str, Any]:
    """One of the pairs that are likely wrong, the most suspect first."""
    details = outcome.details
    caption, better = int(details["mislabelled"][place]), int(details["best_caption"][place])
    entry = _picture(rows, int(rows.embeddings.text_to_image[caption]))
    entry |= {name: float(details[name][caption]) for name in ("clip_score", "suspicion")}
    if rows.source:
        entry |= {"caption": rows.caption(caption), "best_caption": rows.caption(better)}
    return entry


# ---- files --------------------------------------------------------------------------------------------------------


def _draw(folder: Path, pairs: Sequence[tuple[str, str]], outcome: Any, rows: Any) -> list[str]:
    """The names of the pictures."""
    from ..evaluation import analysis_pictures as draw

    drawn = []
    if "clip_score" in outcome.details:
        draw.draw_clip_scores(outcome, folder / "clip_scores.png")
        drawn.append("clip_scores.png")
    if pairs:
        draw.draw_word_pairs(outcome, rows, pairs, folder / "word_pairs.png")
        drawn.append("word_pairs.png")
    if outcome.metrics.get("estimated_mislabelled"):
        draw.draw_mislabelled(outcome, rows, folder / "mislabelled.png")
        drawn.append("mislabelled.png")
    if len(outcome.details["outliers"]):
        draw.draw_outliers(outcome, rows, folder / "outliers.png")
        drawn.append("outliers.png")
    return drawn


def _write(folder: Path, pairs: Sequence[tuple[str, str]], outcome: Any, rows: Any, report: dict[str, Any]) -> None:
    from ..embedding_store import replace_file

    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    replace_file(folder / "scores.csv", lambda file: _write_scores(file, pairs, outcome, rows))
    if "mislabelled" in outcome.details:
        replace_file(folder / "mislabelled.csv", lambda file: _write_mislabelled(file, outcome, rows))
    replace_file(folder / "report.md", lambda file: file.write_text(_markdown(report), encoding="utf-8"))
    replace_file(folder / "analysis.json", lambda file: file.write_text(text, encoding="utf-8"))


def _write_scores(file: Path, pairs: Sequence[tuple[str, str]], outcome: Any, rows: Any) -> None:
    """A line a caption; a picture without one has a line too."""
    details, embeddings = outcome.details, rows.embeddings
    counts = embeddings.text_to_image.bincount(minlength=len(embeddings.image_embeds)).tolist()
    caption = 0
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        names = ["row", "picture", "caption", "clip_score", "suspicion", "neighbour_cosine"]
        writer.writerow(names + [" / ".join(pair) for pair in pairs])
        for image, count in enumerate(counts):
            texts = rows.captions(image) or [""] * max(count, 1)
            of_picture = [details["neighbour_cosine"][image], *(details["word_pairs"][image] if pairs else ())]
            for number, text in enumerate(texts):
                own = [details[name][caption + number] if count else nan for name in ("clip_score", "suspicion")]
                values = ("" if isnan(value) else f"{value:.6f}" for value in [*own, *of_picture])
                writer.writerow([rows.row(image), rows.name(image), text, *values])
            caption += count


def _write_mislabelled(file: Path, outcome: Any, rows: Any) -> None:
    names = ["row", "picture", "clip_score", "suspicion", "caption", "best_caption"]
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(_suspect(outcome, rows, place) for place in range(len(outcome.details["mislabelled"])))


def _markdown(report: dict[str, Any]) -> str:
    metrics = report["metrics"]
    parts = [f"# {_plain(report['data'])} as the model {_plain(report['model'])} sees it", _counts(metrics) + "."]
    if "clip_score_mean" in metrics:
        parts += ["## Agreement of pictures and captions", _table(["CLIPScore", ""], _agreement(metrics))]
        parts += _shown(report, "clip_scores.png")
    if report["word_pairs"]:
        parts += ["## Word pairs", _table(_PAIR_HEADER, _pair_rows(report)), *_shown(report, "word_pairs.png")]
        parts += [
            "\n".join(
                f"- {_plain(pair['pair'][side])}: " + ", ".join(_label(entry, side) for entry in pair[end])
                for pair in report["word_pairs"]
                for side, end in enumerate(("highest", "lowest"))
            )
        ]
    if "estimated_mislabelled" in metrics:
        parts += ["## Likely mislabelled", _estimate(metrics) + " All of them: [mislabelled.csv](mislabelled.csv)."]
        if report["mislabelled"]:
            parts += [_listing(report["mislabelled"]), *_shown(report, "mislabelled.png")]
    if report["outliers"]:
        parts += ["## Outliers", "Pictures far from all others, by the mean cosine to those nearest."]
        parts += [_listing(report["outliers"]), *_shown(report, "outliers.png")]
    protocol = "\n".join(f"- {name.replace('_', ' ')}: {how}" for name, how in report["protocol"].items())
    parts += ["## How it was measured", protocol, *report["notes"]]
    if report["skipped"]:
        skipped = [[row + 1, name, reason] for row, name, reason in report["skipped"]]
        parts += ["## Pictures that could not be read", _table(["row", "picture", "why"], skipped)]
    return "\n\n".join(parts) + "\n"


def _counts(metrics: dict[str, Any]) -> str:
    pictures = f"{metrics['images']} pictures (duplicates: {metrics['duplicate_images']}"
    return f"{pictures}, skipped: {metrics['skipped_images']}), {metrics['captions']} captions"


def _agreement(metrics: dict[str, Any]) -> list[list[Any]]:
    """Rows of a table: the CLIPScore's figures."""
    quantiles = [[f"{int(name[-2:])} %", metrics[name]] for name in metrics if name.startswith("clip_score_q")]
    rows = [["mean", metrics["clip_score_mean"]], ["deviation", metrics["clip_score_std"]], *quantiles]
    if "mismatched_clip_score_mean" in metrics:
        rows.append(["mean with another's caption", metrics["mismatched_clip_score_mean"]])
    return rows


def _pair_rows(report: dict[str, Any]) -> list[list[Any]]:
    return [[" / ".join(pair["pair"]), pair["mean"], pair["above_half"]] for pair in report["word_pairs"]]


def _estimate(metrics: dict[str, Any]) -> str:
    share = 100 * metrics["estimated_mislabelled_share"]
    counts = f"{metrics['estimated_mislabelled']} of {metrics['captions']} captions ({share:.1f} %)"
    return f"About {counts} are wrong, or the model does not understand them."


def _label(entry: dict[str, Any], side: int) -> str:
    """A picture with the probability of the first prompt of a pair (side 0) or of the second."""
    name = f" {_plain(entry['picture'])}" if "picture" in entry else ""
    return f"row {entry['row']}{name} ({abs(side - entry['score']):.3f})"


def _listing(entries: list[dict[str, Any]]) -> str:
    return _table([name.replace("_", " ") for name in entries[0]], [list(entry.values()) for entry in entries])


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else _plain(str(value))


def _plain(text: str) -> str:
    """A user's text on one line, without meaning in Markdown."""
    return re.sub(r"([\\|`*<\[\]])", r"\\\1", " ".join(text.split()))


def _shown(report: dict[str, Any], picture: str) -> list[str]:
    return [f"![{picture}]({picture})"] if picture in report["pictures"] else []


def _print(printer: Printer, folder: Path, report: dict[str, Any]) -> None:
    from ..data.images import skipped_line

    metrics = report["metrics"]
    printer.line(_counts(metrics))
    if "clip_score_mean" in metrics:
        printer.table(["CLIPScore", ""], _agreement(metrics))
        printer.line(_estimate(metrics))
    if report["word_pairs"]:
        printer.table(_PAIR_HEADER, _pair_rows(report))
    for note in report["notes"]:
        printer.line(note)
    for row, name, reason in report["skipped"]:
        printer.line(f"skipped {skipped_line(row, name, reason)}")
    printer.line(f"report: {folder / 'report.md'}")


def _parser() -> Parser:
    parser = Parser("hf-clip analyze", description=__doc__)
    add_shared_settings(parser)
    add_data_settings(parser, ", or a folder that `hf-clip embed` wrote (without names, captions and drawings)")
    parser.add_argument(
        "--pairs",
        nargs="+",
        metavar="PAIR",
        help="opposites to score pictures by, 'a happy face / a sad face', or a .txt file with a pair a line",
    )
    parser.add_argument("--output", default="hf_clip_analysis", help="folder for the report (default: %(default)s)")
    parser.add_argument("--top", type=positive_int, default=20, help="rows listed of each kind (default: %(default)s)")
    return parser
