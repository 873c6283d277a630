"""`hf-clip evaluate`: how good a trained model is on captioned pictures."""

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from ..errors import InputError
from .output import Printer, recall_rows
from .parsing import Parser, add_data_settings, add_shared_settings, open_data, open_model, positive_int

TASKS = ("retrieval",)


def run(arguments: list[str], printer: Printer) -> None:
    settings = _parser().parse_args(arguments)

    from ..data.images import skipped_line
    from ..evaluation.retrieval import evaluate_retrieval

    source, embeddings = _embed(settings)
    metrics = evaluate_retrieval(embeddings, settings.k)
    if settings.pictures:
        from ..evaluation.pictures import draw_retrieval_grid

        draw_retrieval_grid(source, embeddings, Path(settings.pictures, "retrieval.png"))
    if settings.json:
        printer.json(metrics | {"skipped": [list(entry) for entry in embeddings.skipped]})
        return
    printer.line(f"{metrics['images']} pictures, {metrics['captions']} captions")
    printer.table(["", "model", "chance"], recall_rows(metrics, settings.k))
    for row, name, reason in embeddings.skipped:
        printer.line(f"skipped {skipped_line(row, name, reason)}")


def _embed(settings: argparse.Namespace) -> tuple[Any, Any]:
    """(source, embeddings) of a data set, or (None, embeddings) that `hf-clip embed` wrote."""
    from ..embedding import embed_source
    from ..embedding_store import MANIFEST, check_made_by, open_embeddings

    if Path(settings.data, MANIFEST).is_file():
        if settings.pictures:
            raise InputError(f"--pictures needs the pictures, and {settings.data} holds embeddings: give the data set")
        embeddings = open_embeddings(settings.data)
        check_made_by(open_model(settings.model)[0], settings.data)
        return None, embeddings
    if settings.pictures:
        _prepare_pictures(Path(settings.pictures))
    source = open_data(settings)
    model, processor = open_model(settings.model)
    return source, embed_source(
        model,
        processor,
        source,
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        strict=settings.strict,
    )


def _prepare_pictures(folder: Path) -> None:
    """Finds out what stands in the way of drawing before the work of embedding, not after it."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("--pictures needs matplotlib: pip install matplotlib, or leave it out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--pictures {folder} is no folder that can be made: {error.strerror}") from error


def _parser() -> Parser:
    parser = Parser("hf-clip evaluate", description=__doc__)
    add_shared_settings(parser)
    add_data_settings(parser, ", or a folder that `hf-clip embed` wrote")
    parser.add_argument("--task", choices=TASKS, default="retrieval")
    parser.add_argument("--k", type=positive_int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--pictures", help="folder for a picture of queries with what they found")
    return parser
