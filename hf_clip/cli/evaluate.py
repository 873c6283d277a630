"""`hf-clip evaluate`: how good trained models are on captioned or labelled pictures."""

import argparse
import importlib.util
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from .output import Printer
from .parsing import Parser, add_data_settings, add_shared_settings, open_data, open_model, positive_int
from .report_folder import prepare_folder

# As evaluation/tasks.py and prompts.py have them, which `--help` need not import.
TASKS = ("retrieval", "zero-shot", "knn", "linear-probe")
_LABELLED = set(TASKS[1:])
_ROLES = {"knn": ("train",), "linear-probe": ("train", "validation")}
# A name that no column has: `None` would find the usual one, and what is not read need not be in order.
NO_COLUMN = ""


def run(arguments: list[str], printer: Printer) -> None:
    settings = _parser().parse_args(arguments)

    from ..evaluation import report
    from ..evaluation.prompts import open_class_names, open_templates

    folder = prepare_folder(settings.output, report.RESULTS)
    classes = open_class_names(settings.class_names) if settings.class_names else None
    open_templates(settings.templates)  # before the work
    models = _names(settings.model)
    data = _Data(settings, classes)
    if len(models) > 1:  # not to find after hours that the last one cannot be opened
        for model_name in models.values():
            data.check(open_model(model_name)[0])
    evaluation = report.Report(data.facts, measured=[], resamples=settings.resamples)
    grids = []
    with tempfile.TemporaryDirectory() as aside:
        for name, model_name in models.items():
            grids += _measure(name, model_name, data, evaluation, Path(aside))
        if report.can_draw():
            evaluation.pictures = report.draw(evaluation.measured, Path(aside)) + grids
        else:
            print('no pictures without matplotlib: pip install "hf_clip[eval]"', file=sys.stderr)
        results = evaluation.write(folder, Path(aside))
    if settings.json:
        printer.json(results | {"output": settings.output})
        return
    _print(printer, results)
    for line in report.skipped_lines(results):
        printer.line(f"skipped {line}")
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
    """What is measured on, and what is asked of it.

    Attributes:
        tasks: of the data themselves; languages are measured beside them.
        test: a source, or the embeddings of a folder that `hf-clip embed` wrote; None: only languages are measured.
        others: the same of "train" and "validation", where they were given.
        facts: of the data; facts_by_role: of `others`; fingerprints: of each language's captions and pictures.
    """

    def __init__(self, settings: argparse.Namespace, classes: list[list[str]] | None):
        from ..evaluation.tasks import check_installed

        self.settings, self.classes = settings, classes
        self.tasks = list(dict.fromkeys(settings.task or ()))
        for task in self.tasks:
            check_installed(task)
        if len(settings.model) > 1 and importlib.util.find_spec("scipy") is None:
            raise InputError('to compare models needs scipy: pip install "hf_clip[eval]"')
        columns = _pairs(settings.languages)
        _check_use(settings)
        self.languages = {
            language: open_data(settings, captions_required=False, caption_column=column)
            for language, column in columns.items()
        }
        if _is_stored(settings.data):
            self.test, self.facts = _open_stored(settings.data)
            self.tasks = self.tasks or _tasks_of(self.test, classes)
        else:
            self._open()
        if not (self.tasks or self.languages):
            raise InputError(
                f"{settings.data} has no captions and no named classes: give data that have either, class_names for "
                "labels that are numbers, or a task"
            )
        self.fingerprints = {name: self._facts(source)["fingerprint"] for name, source in self.languages.items()}
        self.others: dict[str, Any] = {}
        self.facts_by_role: dict[str, Any] = {}
        for role in ("train", "validation"):
            if path := vars(settings)[f"{role}_data"]:
                self._open_other(role, path, vars(settings)[f"{role}_split"])
        self._check_ks()

    def _open(self) -> None:
        """The data set, with captions only where retrieval is measured, and the tasks where none was asked for."""
        if self.languages:
            self.tasks = [task for task in self.tasks if task != "retrieval"]  # by language
        if not self.settings.task:
            self.tasks = self._default_tasks()
        captioned = "retrieval" in self.tasks
        if self.tasks:
            self.test = self._open_source(captioned, bool(_LABELLED.intersection(self.tasks)))
        else:
            self.test = None
        self.facts = self._facts(self.test or next(iter(self.languages.values())))

    def _default_tasks(self) -> list[str]:
        """What can be measured on what the data hold; languages are asked for already."""
        from ..evaluation.tasks import tasks_for

        captions = {"caption_column": NO_COLUMN} if self.languages else {}
        try:
            source = self._open_source(False, True, **captions)
            if not (self.classes or self.settings.label_column or _of_classes(source)) and source.caption_column:
                source = replace(source, label_column=None, class_names=None)
        except InputError:
            if self.classes or self.settings.label_column:
                raise
            source = self._open_source(False, False, **captions)
        found = tasks_for(source)
        if not (found or self.languages):
            self._open_source(True, False)  # says which column may be meant
        return found

    def _open_source(self, captioned: bool, labelled: bool, **others: Any) -> Any:
        names = {"class_names": [of_class[0] for of_class in self.classes]} if self.classes else {}
        if not captioned and self.tasks:
            others = {"caption_column": NO_COLUMN} | others
        return open_data(self.settings, captions_required=captioned, labels_required=labelled, **names, **others)

    def _open_other(self, role: str, path: str, split: str) -> None:
        if _is_stored(path):
            self.others[role], self.facts_by_role[role] = _open_stored(path)
            return
        source = self._open_source(False, True, data=path, split=split, caption_column=NO_COLUMN)
        self.others[role], self.facts_by_role[role] = source, self._facts(source, split)

    def _facts(self, source: Any, split: str | None = None) -> dict[str, Any]:
        from ..embedding_store import data_facts

        return data_facts(source, split or self.settings.split)

    def _check_ks(self) -> None:
        """Before the work, as far as it is known: pictures may yet be skipped."""
        asked = max(self.settings.k or (0,)) if self.languages or "retrieval" in self.tasks else 0
        if asked > (rows := min(map(_pictures, [*self.languages.values(), *([self.test] if self.test else [])]))):
            raise InputError(f"recall@{asked} of {rows} pictures is always 1: give k up to {rows}")

    def check(self, model: Any) -> None:
        """
        Raises:
            InputError: stored embeddings are another model's.
        """
        from ..embedding_store import check_made_by

        paths = (self.settings.data, self.settings.train_data, self.settings.validation_data)
        for path in paths:
            if path and _is_stored(path):
                check_made_by(model, path)

    def embed(self, model: Any, processor: Any) -> tuple[Any, dict[str, Any]]:
        """The data (or None), and by role what trains a probe and what its strength is chosen by."""
        self.check(model)
        others = {role: self._embedded(model, processor, data) for role, data in self.others.items()}
        captioned = "retrieval" in self.tasks
        return self.test and self._embedded(model, processor, self.test, captioned), others

    def _embedded(self, model: Any, processor: Any, data: Any, captioned: bool = False) -> Any:
        from ..data.sources import Source
        from ..embedding import embed_source, with_labels

        if not isinstance(data, Source):
            return data
        bare = replace(data, caption_column=None, label_column=None, captions_required=False)
        embeddings = embed_source(
            model,
            processor,
            data if captioned else bare,
            batch_size=self.settings.batch_size,
            num_workers=self.settings.num_workers,
            strict=self.settings.strict,
            pooled=self.settings.features == "pooled",
        )
        return with_labels(embeddings, data)


def _is_stored(path: str) -> bool:
    from ..embedding_store import MANIFEST

    return Path(path, MANIFEST).is_file()


def _open_stored(path: str) -> tuple[Any, dict[str, Any]]:
    from ..embedding_store import open_embeddings, read_manifest

    return open_embeddings(path), read_manifest(Path(path))["data"] | {"split": "as embedded"}


def _tasks_of(stored: Any, classes: list[list[str]] | None) -> list[str]:
    from ..evaluation.tasks import tasks_for

    named = classes and stored.labels is not None
    return list(dict.fromkeys([*tasks_for(stored), *(["zero-shot"] if named else [])]))


def _of_classes(source: Any) -> bool:
    """Whether its label column is known to hold classes."""
    from datasets import ClassLabel

    from ..data.columns import of_list

    return isinstance(of_list((source.rows.features or {}).get(source.label_column)), ClassLabel)


def _pictures(data: Any) -> int:
    return len(data) if hasattr(data, "rows") else len(data.image_embeds)


def _check_use(settings: argparse.Namespace) -> None:
    """
    Raises:
        InputError: settings that nothing would be done with.
    """
    learning = {"knn", "linear-probe"}.intersection(settings.task or ())
    if settings.train_data and not learning:
        raise InputError("--train_data is for knn and linear-probe: ask for one by --task, or leave it out")
    if settings.validation_data and not settings.train_data:
        raise InputError("--validation_data needs --train_data, which it is the validation of")
    if settings.validation_data and "linear-probe" not in learning:
        raise InputError("--validation_data is for linear-probe: ask for it by --task, or leave it out")
    given = [path for path in (settings.data, settings.train_data, settings.validation_data) if path]
    stored = [path for path in given if _is_stored(path)]
    if stored and settings.features == "pooled":
        raise InputError(f"{stored[0]} holds embeddings, not pooled features: give the data set")
    if settings.data not in stored:
        return
    if settings.languages:
        raise InputError(f"{settings.data} holds embeddings: for languages give the data set")
    useless = {"caption_column": settings.caption_column, "split": settings.split != "test"}
    if stored == given:
        useless |= {name: vars(settings)[name] for name in ("image_column", "label_column", "strict")}
    if names := [f"--{name}" for name, value in useless.items() if value]:
        raise InputError(
            f"{settings.data} holds embeddings, of which {', '.join(names)} can change nothing: leave out"
        )


def _pairs(settings: list[str]) -> dict[str, str]:
    """Columns by language."""
    pairs: dict[str, str] = {}
    for language, _, column in (setting.partition("=") for setting in settings):
        if not (language and column):
            raise InputError(f"--languages {language}: give language=column, as in zh=captions.zh")
        if language in pairs:
            raise InputError(f"--languages names {language} twice: give one column for each language")
        pairs[language] = column
    return pairs


def _measure(name: str, model_name: str, data: _Data, report: Any, folder: Path) -> list[str]:
    """Adds what one model reaches to the report; the names of the pictures that show its captions."""
    from ..data.sources import Source
    from ..evaluation.report import Measured, can_draw, draw_best_and_worst, model_facts
    from ..evaluation.tasks import measure

    model, processor = open_model(model_name)
    facts = model_facts(model, name)
    if data.test and not isinstance(data.test, Source):
        facts["precision"] += ", stored as float16"
    embeddings, others = data.embed(model, processor)
    grids = []
    for task in data.tasks:
        outcome = measure(task, model, processor, embeddings, _protocol(data), **others)
        for role in _ROLES.get(task, ()):
            if role in others:
                outcome.protocol[f"{role}_data"] = data.facts_by_role[role]
        report.measured.append(Measured(facts, task, outcome))
        if task == "retrieval" and isinstance(data.test, Source) and can_draw():
            number = len(report.models()) if len(data.settings.model) > 1 else ""
            grids = draw_best_and_worst(data.test, embeddings, outcome, folder, number)
    report.skipped = embeddings.skipped if embeddings else []
    report.skipped_of = {role: other.skipped for role, other in others.items()}
    if data.languages:
        _measure_languages(model, processor, facts, data, report)
    return grids


def _protocol(data: _Data) -> Any:
    from ..evaluation.tasks import Protocol

    settings = data.settings
    return Protocol(
        ks=settings.k,
        templates=settings.templates,
        class_names=data.classes,
        features=settings.features,
        neighbours=settings.neighbours,
        shots=settings.shots,
        seeds=settings.seeds,
    )


def _measure_languages(model: Any, processor: Any, facts: dict[str, Any], data: _Data, report: Any) -> None:
    from ..evaluation.languages import evaluate_languages
    from ..evaluation.report import Measured

    settings = data.settings
    outcomes = evaluate_languages(
        model,
        processor,
        data.languages,
        settings.k,
        batch_size=settings.batch_size,
        num_workers=settings.num_workers,
        strict=settings.strict,
    )
    for language, outcome in outcomes.items():
        report.measured.append(Measured(facts, f"retrieval/{language}", outcome, data.fingerprints[language]))
    skipped = next(iter(outcomes.values())).details["skipped"]
    if data.tasks:
        report.skipped_of["languages"] = skipped
    else:
        report.skipped = skipped


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
