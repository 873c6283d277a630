"""`hf-clip analyze`: what a model says of a data set: word pairs, agreement, likely mislabelled rows, outliers."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..evaluation.report_folder import prepare_folder
from .output import Printer
from .parsing import Parser, add_data_settings, add_shared_settings, embed_options, open_data, open_model, positive_int


def run(arguments: list[str], printer: Printer) -> None:
    settings = _parser().parse_args(arguments)
    pairs = _read_pairs(settings.pairs or [])

    from ..analysis.analyze import Rows, analyze
    from ..analysis.report import RESULTS, AnalysisReport
    from ..core.public import public_name

    folder = prepare_folder(settings.output, RESULTS)
    data = _open_data(settings)
    model, processor = open_model(settings.model)
    pair_embeds, notes = _embed_pairs(model, processor, pairs)
    source, embeddings = _embed(settings, data, model, processor)
    logit_scale = model.logit_scale.detach().cpu()
    outcome = analyze(embeddings, pair_embeds, logit_scale, device=model.device, progress=True)
    outcome.notes += notes
    model_name, data_name = public_name(settings.model), public_name(settings.data)
    report = AnalysisReport(model_name, data_name, pairs, outcome, Rows(source, embeddings), settings.top)
    results = report.write(folder)
    if settings.json:
        printer.json(results)
    else:
        _print(printer, folder, results)


def _open_data(settings: argparse.Namespace) -> Any:
    """A source, or the embeddings of a folder that `hf-clip embed` wrote."""
    from ..embeddings.store import MANIFEST, open_embeddings

    if Path(settings.data, MANIFEST).is_file():
        return open_embeddings(settings.data)
    return open_data(settings, captions_required=False)


def _embed(settings: argparse.Namespace, data: Any, model: Any, processor: Any) -> tuple[Any, Any]:
    """(source, embeddings); of a folder that `hf-clip embed` wrote, without source."""
    from ..data.sources import Source
    from ..embeddings.encode import embed_source
    from ..embeddings.store import check_made_by

    if not isinstance(data, Source):
        check_made_by(model, settings.data)
        return None, data
    return data, embed_source(model, processor, data, embed_options(settings))


def _embed_pairs(model: Any, processor: Any, pairs: Sequence[tuple[str, str]]) -> tuple[Any, list[str]]:
    """(pairs, 2, dim), or None without pairs, and how many of the prompts were cut.

    Raises:
        InputError: two sides that are the same tokens to the text tower: every picture would have ½.
    """
    from ..embeddings.encode import embed_prompts
    from ..evaluation.prompts import cut_note

    if not pairs:
        return None, []
    prompts = [prompt for pair in pairs for prompt in pair]
    embeds, ids, cut = embed_prompts(model, processor, prompts)
    for pair, (one, other) in zip(pairs, ids.unflatten(0, (-1, 2)).tolist(), strict=True):
        if one == other:
            raise InputError(f"--pairs {' / '.join(pair)!r}: the model reads both sides as the same: use other words")
    return embeds.unflatten(0, (-1, 2)), [f"{note}." for note in cut_note(prompts, cut.tolist())]


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
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
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


# ---- what is printed ----------------------------------------------------------------------------------------------


def _print(printer: Printer, folder: Path, results: dict[str, Any]) -> None:
    from ..analysis import report as report
    from ..data.images import skipped_line

    metrics = results["metrics"]
    printer.line(report.counts_line(metrics))
    if "clip_score_mean" in metrics:
        printer.table(["CLIPScore", ""], report.agreement_rows(metrics))
        printer.line(report.estimate_line(metrics))
    if results["word_pairs"]:
        printer.table(report.PAIR_HEADER, report.pair_rows(results))
    for note in results["notes"]:
        printer.line(note)
    for row, name, reason in results["skipped"]:
        printer.line(f"skipped {skipped_line(row, name, reason)}")
    printer.line(f"report: {folder / report.PAGE}")


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
