"""What `hf-clip evaluate` measures on: sources or stored embeddings, and the tasks that suit them."""

import argparse
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from .parsing import open_data

# As evaluation/tasks.py has them, which `--help` need not import.
TASKS = ("retrieval", "zero-shot", "knn", "linear-probe")
_LABELLED = set(TASKS[1:])
# The data that a task takes beside those it measures on.
ROLES = {"knn": ("train",), "linear-probe": ("train", "validation")}
# A name that no column has: `None` would find the usual one, and what is not read need not be in order.
NO_COLUMN = ""


class EvaluationData:
    """What is measured on, and what is asked of it.

    Attributes:
        tasks: of the data themselves; languages are measured beside them.
        test: a source, or the embeddings of a folder that `hf-clip embed` wrote; None: only languages are measured.
        others: the same of "train" and "validation", where they were given.
        facts: of the data; facts_by_role: of `others`; fingerprints: of each language's captions and pictures.
    """

    def __init__(self, settings: argparse.Namespace, classes: list[list[str]] | None):
        from ..evaluation.tasks.registry import check_installed

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
                self._open_other(role, path, vars(settings)[f"{role}_split"] or (role,))
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
        from ..data.sources import holds_classes
        from ..evaluation.tasks.registry import tasks_for

        captions = {"caption_column": NO_COLUMN} if self.languages else {}
        try:
            source = self._open_source(False, True, **captions)
            of_classes = self.classes or self.settings.label_column or holds_classes(source.rows, source.label_column)
            if not of_classes and source.caption_column:
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
        source = open_data(self.settings, captions_required=captioned, labels_required=labelled, **names, **others)
        if labelled and self.tasks and source.label_column and not source.has_classes:
            raise InputError(f"rows of {source.name} have lists of labels, which are only numbers: give class_names")
        return source

    def _open_other(self, role: str, path: str, split: str | tuple[str, ...]) -> None:
        if _is_stored(path):
            self.others[role], self.facts_by_role[role] = _open_stored(path)
            return
        source = self._open_source(False, True, data=path, split=split, caption_column=NO_COLUMN)
        self.others[role], self.facts_by_role[role] = source, self._facts(source)

    def _facts(self, source: Any) -> dict[str, Any]:
        from ..embeddings.store import data_facts

        return data_facts(source)

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
        from ..embeddings.store import check_made_by

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
        from ..embeddings.encode import embed_source, with_labels

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
    from ..embeddings.store import MANIFEST

    return Path(path, MANIFEST).is_file()


def _open_stored(path: str) -> tuple[Any, dict[str, Any]]:
    from ..embeddings.store import open_embeddings, read_manifest

    return open_embeddings(path), read_manifest(Path(path))["data"] | {"split": "as embedded"}


def _tasks_of(stored: Any, classes: list[list[str]] | None) -> list[str]:
    from ..evaluation.tasks.registry import tasks_for

    named = classes and stored.labels is not None
    return list(dict.fromkeys([*tasks_for(stored), *(["zero-shot"] if named else [])]))


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
    useless = {"caption_column": settings.caption_column, "split": settings.split}
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
