"""`hf-clip evaluate`: how good trained models are on captioned or labelled pictures."""

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

from ..errors import InputError
from .output import Printer
from .parsing import Parser, add_data_settings, add_shared_settings, open_data, open_model, positive_int
from .report_folder import prepare_folder

# As evaluation/tasks.py and prompts.py have them, which `--help` need not import.
TASKS = ("retrieval", "zero-shot", "knn", "linear-probe")
_LABELLED = set(TASKS[1:])


def run(arguments: list[str], printer: Printer) -> None:
    settings = _parser().parse_args(arguments)

    from ..data.images import skipped_line
    from ..evaluation import report
    from ..evaluation.prompts import open_class_names, open_templates

    folder = prepare_folder(settings.output, report.RESULTS)
    classes = open_class_names(settings.class_names) if settings.class_names else None
    open_templates(settings.templates)  # before the work
    data = _Data(settings, classes)
    evaluation = report.Report(data.facts, measured=[], resamples=settings.resamples)
    grids = []
    for name, model_name in _names(settings.model).items():
        grids += _measure(name, model_name, data, evaluation, folder / report.PICTURES)
    if report.can_draw():
        evaluation.pictures = report.draw(evaluation.measured, folder / report.PICTURES) + grids
    else:
        print('no pictures without matplotlib: pip install "hf_clip[eval]"', file=sys.stderr)
    results = evaluation.write(folder)
    if settings.json:
        printer.json(results | {"output": settings.output})
        return
    _print(printer, results)
    for entry in evaluation.skipped:
        printer.line(f"skipped {skipped_line(*entry)}")
    printer.line(f"figures, protocol and pictures: {folder / report.PAGE}")


def _names(models: list[str]) -> dict[str, str]:
    """Folders and Hub ids by what they are called in the report; of folders of the same name, with those above them as
    far as it takes to tell them apart."""
    from ..embedding_store import public_name

    if len({Path(model).resolve() for model in models}) < len(models):
        raise InputError(f"--model {' '.join(models)} names a model twice: give each once")
    called, parts = [public_name(model) for model in models], 1
    while len(set(called)) < len(called):
        parts += 1
        called = [
            str(Path(*Path(model).resolve().parts[-parts:])) if called.count(name) > 1 else name
            for model, name in zip(models, called, strict=True)
        ]
    return dict(zip(called, models, strict=True))


class _Data:
    """What is measured on: sources, or a folder that `hf-clip embed` wrote, and what is asked of it."""

    def __init__(self, settings: argparse.Namespace, classes: list[list[str]] | None):
        from ..embedding_store import MANIFEST, data_facts, open_embeddings, read_manifest
        from ..evaluation.tasks import check_installed, tasks_for

        for task in settings.task or ():
            check_installed(task)
        if len(settings.model) > 1 and importlib.util.find_spec("scipy") is None:
            raise InputError('to compare models needs scipy: pip install "hf_clip[eval]"')
        self.settings, self.classes = settings, classes
        self.source = self.stored = self.train = self.validation = None
        self.languages: dict[str, Any] = {}
        tasks = set(settings.task or ())
        if Path(settings.data, MANIFEST).is_file():
            if settings.languages or settings.features == "pooled":
                raise InputError(
                    f"{settings.data} holds embeddings: for languages or pooled features give the data set"
                )
            self.stored = open_embeddings(settings.data)
            self.facts = read_manifest(Path(settings.data))["data"] | {"split": "as embedded"}
            self.tasks = settings.task or tasks_for(self.stored)
            return
        names = [of_class[0] for of_class in classes] if classes else None
        labelled: dict[str, Any] = {"labels_required": bool(tasks & _LABELLED), "class_names": names}
        captioned = not tasks or "retrieval" in tasks
        self.languages = {
            language: open_data(settings, captions_required=False, caption_column=column)
            for language, column in _pairs(settings.languages).items()
        }
        if self.languages and not tasks:
            self.source = next(iter(self.languages.values()))
        else:
            self.source = open_data(settings, captions_required=captioned, **labelled)
        self.facts = data_facts(self.source, settings.split)
        self.tasks = settings.task or ([] if self.languages else tasks_for(self.source))
        for name, split in (("train", settings.train_split), ("validation", settings.validation_split)):
            if path := vars(settings)[f"{name}_data"]:
                opened = open_data(settings, captions_required=False, data=path, split=split, **labelled)
                setattr(self, name, opened)

    def embed(self, model: Any, processor: Any, model_name: str) -> tuple[Any, Any, Any]:
        """The data, and for the probe what trains it and what its strength is chosen by (or None)."""
        from ..embedding import embed_source
        from ..embedding_store import check_made_by

        if self.stored:
            check_made_by(model, self.settings.data)
            return self.stored, None, None
        of_pass: dict[str, Any] = {
            "batch_size": self.settings.batch_size,
            "num_workers": self.settings.num_workers,
            "strict": self.settings.strict,
            "pooled": self.settings.features == "pooled",
        }
        sources = (self.source if self.tasks else None, self.train, self.validation)
        whole, train, validation = (s and embed_source(model, processor, s, **of_pass) for s in sources)
        return whole, train, validation


def _pairs(settings: list[str]) -> dict[str, str]:
    """Columns by language."""
    pairs = [setting.partition("=")[::2] for setting in settings]
    for language, column in pairs:
        if not (language and column):
            raise InputError(f"--languages {language}: give language=column, as in zh=captions.zh")
    return dict(pairs)


def _measure(name: str, model_name: str, data: _Data, report: Any, folder: Path) -> list[str]:
    """Adds what one model reaches to the report; the names of the pictures that show its captions."""
    from ..evaluation.languages import evaluate_languages
    from ..evaluation.report import Measured, can_draw, draw_best_and_worst, model_facts
    from ..evaluation.tasks import Protocol, measure

    settings = data.settings
    protocol = Protocol(
        ks=settings.k,
        templates=settings.templates,
        class_names=data.classes,
        features=settings.features,
        neighbours=settings.neighbours,
        shots=settings.shots,
        seeds=settings.seeds,
    )
    model, processor = open_model(model_name)
    facts = model_facts(model, name)
    if data.stored:
        facts["precision"] += ", stored as float16"
    embeddings, train, validation = data.embed(model, processor, model_name)
    grids = []
    for task in data.tasks:
        outcome = measure(task, model, processor, embeddings, protocol, train=train, validation=validation)
        report.measured.append(Measured(facts, task, outcome))
        if task == "retrieval" and data.source and can_draw():
            number = len(report.models()) if len(settings.model) > 1 else ""
            grids = draw_best_and_worst(data.source, embeddings, outcome, folder, number)
    if embeddings:
        report.skipped = embeddings.skipped
    if data.languages:
        outcomes = evaluate_languages(
            model,
            processor,
            data.languages,
            settings.k,
            batch_size=settings.batch_size,
            num_workers=settings.num_workers,
        )
        report.measured += [Measured(facts, f"retrieval/{key}", outcome) for key, outcome in outcomes.items()]
    return grids


def _print(printer: Printer, results: dict[str, Any]) -> None:
    """A table a task: the models side by side, beside chance."""
    names = [model["name"] for model in results["models"]]
    for task in dict.fromkeys(figure["task"] for figure in results["figures"]):
        figures = [figure for figure in results["figures"] if figure["task"] == task]
        counts = ", ".join(f"{figures[0][what]} {what}" for what in ("images", "captions") if what in figures[0])
        printer.line(f"{task}: {counts}")
        found = {(figure["metric"], figure["model"]): figure["value"] for figure in figures}
        chance = {figure["metric"]: figure["chance"] for figure in figures}
        rows = [
            [metric, *(found.get((metric, name), "") for name in names), "" if by_chance is None else by_chance]
            for metric, by_chance in chance.items()
        ]
        printer.table(["", *(names if len(names) > 1 else ["model"]), "chance"], rows)
    for row in results["differences"]:
        if row["real"]:
            what = f"{row['to']} − {row['from']}, {row['metric']}"
            printer.line(f"{what}: {row['value']:+.3f}, p {row['p_value']:.2g}")
    if results["differences"] and not any(row["real"] for row in results["differences"]):
        printer.line("no difference between the models is more than chance would give")
    for where, notes in results["notes"].items():
        for note in notes:
            printer.line(f"{where}: {note}")


def _parser() -> Parser:
    parser = Parser("hf-clip evaluate", description=__doc__)
    add_shared_settings(parser, several_models=True)
    add_data_settings(parser, ", or a folder that `hf-clip embed` wrote")
    parser.add_argument(
        "--task", choices=TASKS, nargs="+", help="default: retrieval where there are captions, zero-shot with classes"
    )
    parser.add_argument("--output", default="hf_clip_evaluation", help="folder for results.json, report.md, pictures")
    parser.add_argument("--k", type=positive_int, nargs="+", help="of recall@k; default: 1 5 10, as far as they go")
    parser.add_argument(
        "--languages", nargs="+", default=[], metavar="LANGUAGE=COLUMN", help="retrieval by language: zh=captions.zh …"
    )
    parser.add_argument(
        "--class_names", help="file of the classes in order: .txt with a class a line (names apart by |), .json, .yaml"
    )
    parser.add_argument(
        "--templates", default="photo", help="a named set, a file, open_clip/NAME, or a sentence with {} in it"
    )
    parser.add_argument("--train_data", help="labelled pictures for knn and linear-probe; default: parts of --data")
    parser.add_argument("--train_split", default="train", help="of train_data, where it is a Hub data set")
    parser.add_argument("--validation_data", help="to choose the probe's strength; default: a part of train_data")
    parser.add_argument("--validation_split", default="validation", help="where it is a Hub data set")
    parser.add_argument(
        "--features", choices=("projected", "pooled"), default="projected", help="of knn and linear-probe"
    )
    parser.add_argument("--neighbours", type=positive_int, default=20, help="that vote in knn")
    parser.add_argument(
        "--shots", type=positive_int, nargs="+", default=[], help="pictures a class of few-shot probes"
    )
    parser.add_argument("--seeds", type=positive_int, default=3, help="draws of each few-shot probe")
    parser.add_argument("--resamples", type=positive_int, default=2000, help="of the confidence intervals")
    return parser
