"""`hf-clip evaluate`: how good a trained model is on captioned pictures."""

import importlib.util
from pathlib import Path

from ..errors import InputError
from .output import Printer, recall_rows
from .parsing import Parser, add_data_settings, open_model, positive_int

TASKS = ("retrieval",)


def run(arguments: list[str], printer: Printer) -> None:
    settings = _parser().parse_args(arguments)

    from ..data.sources import open_source
    from ..embedding import embed_source
    from ..evaluation.retrieval import evaluate_retrieval

    if settings.pictures:
        _prepare_pictures(Path(settings.pictures))
    source = open_source(
        settings.data,
        split=settings.split,
        image_column=settings.image_column,
        caption_column=settings.caption_column,
    )
    model, processor = open_model(settings.model)
    embeddings = embed_source(model, processor, source, batch_size=settings.batch_size)
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
        printer.line(f"skipped row {row + 1}: {name}: {reason}")


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
    parser.add_argument("--model", required=True, help="folder or Hub id of a trained model")
    add_data_settings(parser)
    parser.add_argument("--task", choices=TASKS, default="retrieval")
    parser.add_argument("--k", type=positive_int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--batch_size", type=positive_int, default=64)
    parser.add_argument("--pictures", help="folder for a picture of queries with what they found")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser
