"""What is measured on: sources or stored embeddings, and the tasks that suit them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from ..core.errors import InputError
from ..data.named_splits import ANY
from ..data.sources import Source, holds_classes, open_source
from ..embeddings.encode import Embeddings, embed_source, with_labels
from ..embeddings.provenance import data_facts
from ..embeddings.store import MANIFEST, check_made_by, open_embeddings, read_manifest
from ..models.processing_hf_clip import HFClipProcessor
from .records import DataFacts
from .tasks.registry import TASKS, find_task, tasks_for

# A name that no column has: `None` would find the usual one, and what is not read need not be in order.
_NO_COLUMN = ""


@dataclass(frozen=True)
class EvaluationSettings:
    """Which data are measured, on what, and how they are read.

    Args:
        data: a source, as `open_source` takes it, or a folder that `hf-clip embed` wrote.
        split, data_config, image_column, caption_column, label_column: of the data, as `open_source` has them.
        tasks: of `TASKS`; default: those that suit the data.
        class_names: the names of each class; default: those of the data, one each.
        ks: of recall@k.
        languages: columns of captions by language.
        train_data, validation_data: what knn and the linear probe learn from; with a split of each.
        features: of the probe and the neighbors, as `Protocol` has them.
        batch_size: images that are embedded at a time.
        num_workers: processes that decode images.
        strict: stop at the first image that cannot be read.
    """

    data: str
    split: str | None = None
    data_config: str | None = None
    image_column: str | None = None
    caption_column: str | None = None
    label_column: str | None = None
    tasks: Sequence[str] = ()
    class_names: Sequence[Sequence[str]] | None = None
    ks: Sequence[int] | None = None
    languages: dict[str, str] = field(default_factory=dict)
    train_data: str | None = None
    train_split: str | None = None
    validation_data: str | None = None
    validation_split: str | None = None
    features: str = "projected"
    batch_size: int = 64
    num_workers: int = 0
    strict: bool = False


class EvaluationData:
    """What is measured on, opened and looked through before the work begins.

    Raises:
        InputError: settings that contradict each other or the data.

    Attributes:
        tasks: of the data themselves; languages are measured beside them.
        test: a source, or the embeddings of a folder that `hf-clip embed` wrote; None: only languages are measured.
        others: the same of "train" and "validation", where they were given.
        facts: of the data; facts_by_role: of `others`; fingerprints: of each language's captions and pictures.
    """

    def __init__(self, settings: EvaluationSettings):
        self.settings = settings
        self.tasks = list(dict.fromkeys(settings.tasks))
        for task in self.tasks:
            find_task(task).check_installed()
        _check_use(settings)
        self.test: Source | Embeddings | None = None
        self.languages = {
            language: self._read(captions_required=False, caption_column=column)
            for language, column in settings.languages.items()
        }
        if _is_stored(settings.data):
            self.test = stored = open_embeddings(settings.data)
            self.facts = _facts_of_stored(settings.data)
            self.tasks = self.tasks or _tasks_of(stored, settings.class_names)
        else:
            self._open()
        if not (self.tasks or self.languages):
            raise InputError(
                f"{settings.data} has no captions and no named classes: give data that have either, class_names for "
                "labels that are numbers, or a task"
            )
        self.fingerprints = {name: data_facts(source)["fingerprint"] for name, source in self.languages.items()}
        self.others: dict[str, Source | Embeddings] = {}
        self.facts_by_role: dict[str, DataFacts] = {}
        for role in ("train", "validation"):
            if path := getattr(settings, f"{role}_data"):
                self._open_other(role, path, getattr(settings, f"{role}_split") or (role,))
        self._check_ks()

    def _open(self) -> None:
        """The data set, with captions only where retrieval is measured, and the tasks where none was asked for."""
        if self.languages:
            self.tasks = [task for task in self.tasks if task != "retrieval"]  # by language
        if not self.settings.tasks:
            self.tasks = self._default_tasks()
        source = next(iter(self.languages.values()), None)
        if self.tasks:
            captioned, labelled = "retrieval" in self.tasks, any(find_task(task).needs_labels for task in self.tasks)
            self.test = source = self._open_source(captioned, labelled)
        if source is not None:
            self.facts = DataFacts.from_json(data_facts(source))

    def _default_tasks(self) -> list[str]:
        """What can be measured on what the data hold; languages are asked for already."""
        captions = {"caption_column": _NO_COLUMN} if self.languages else {}
        try:
            source = self._open_source(False, True, **captions)
            of_classes = (
                self.settings.class_names
                or self.settings.label_column
                or holds_classes(source.rows, source.label_column)
            )
            if not of_classes and source.caption_column:
                source = replace(source, label_column=None, class_names=None)
        except InputError:
            if self.settings.class_names or self.settings.label_column:
                raise
            source = self._open_source(False, False, **captions)
        found = tasks_for(source)
        if not (found or self.languages):
            self._open_source(True, False)  # says which column may be meant
        return found

    def _read(self, **others: Any) -> Source:
        """The source that the settings name; `others` stand above them."""
        names = ("data", "data_config", "image_column", "caption_column", "label_column")
        asked = {name: getattr(self.settings, name) for name in names} | {"split": self.settings.split or ANY} | others
        return open_source(asked.pop("data"), **asked)

    def _open_source(self, captioned: bool, labelled: bool, **others: Any) -> Source:
        classes = self.settings.class_names
        names = {"class_names": [of_class[0] for of_class in classes]} if classes else {}
        if not captioned and self.tasks:
            others = {"caption_column": _NO_COLUMN} | others
        source = self._read(captions_required=captioned, labels_required=labelled, **names, **others)
        if labelled and self.tasks and source.label_column and not source.has_classes:
            raise InputError(f"rows of {source.name} have lists of labels, which are only numbers: give class_names")
        return source

    def _open_other(self, role: str, path: str, split: str | tuple[str, ...]) -> None:
        if _is_stored(path):
            self.others[role], self.facts_by_role[role] = open_embeddings(path), _facts_of_stored(path)
            return
        source = self._open_source(False, True, data=path, split=split, caption_column=_NO_COLUMN)
        self.others[role], self.facts_by_role[role] = source, DataFacts.from_json(data_facts(source))

    def _check_ks(self) -> None:
        """Before the work, as far as it is known: pictures may yet be skipped."""
        asked = max(self.settings.ks or (0,)) if self.languages or "retrieval" in self.tasks else 0
        measured = [*self.languages.values(), *([] if self.test is None else [self.test])]
        if asked > (rows := min(_count_images(data) for data in measured)):
            raise InputError(f"recall@{asked} of {rows} pictures is always 1: give k up to {rows}")

    def check(self, model: PreTrainedModel) -> None:
        """
        Raises:
            InputError: stored embeddings are another model's.
        """
        paths = (self.settings.data, self.settings.train_data, self.settings.validation_data)
        for path in paths:
            if path and _is_stored(path):
                check_made_by(model, path)

    def embed(
        self, model: PreTrainedModel, processor: HFClipProcessor
    ) -> tuple[Embeddings | None, dict[str, Embeddings]]:
        """The data (or None), and by role what trains a probe and what its strength is chosen by."""
        self.check(model)
        others = {role: self._embedded(model, processor, data) for role, data in self.others.items()}
        captioned = "retrieval" in self.tasks
        test = None if self.test is None else self._embedded(model, processor, self.test, captioned)
        return test, others

    def _embedded(
        self,
        model: PreTrainedModel,
        processor: HFClipProcessor,
        data: Source | Embeddings,
        captioned: bool = False,
    ) -> Embeddings:
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
    return Path(path, MANIFEST).is_file()


def _facts_of_stored(path: str) -> DataFacts:
    return DataFacts.from_json(read_manifest(Path(path))["data"] | {"split": "as embedded"}, str(Path(path, MANIFEST)))


def _tasks_of(stored: Embeddings, classes: Sequence[Sequence[str]] | None) -> list[str]:
    named = classes and stored.labels is not None
    return list(dict.fromkeys([*tasks_for(stored), *(["zero-shot"] if named else [])]))


def _count_images(data: Source | Embeddings) -> int:
    return len(data) if isinstance(data, Source) else len(data.image_embeds)


def _check_use(settings: EvaluationSettings) -> None:
    """
    Raises:
        InputError: settings that nothing would be done with.
    """
    learning = {role for task in settings.tasks for role in find_task(task).learns_from}
    if settings.train_data and "train" not in learning:
        raise InputError(f"--train_data is for {_learners('train')}: ask for one by --task, or leave it out")
    if settings.validation_data and not settings.train_data:
        raise InputError("--validation_data needs --train_data, which it is the validation of")
    if settings.validation_data and "validation" not in learning:
        raise InputError(f"--validation_data is for {_learners('validation')}: ask for it by --task, or leave it out")
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
        useless |= {name: getattr(settings, name) for name in ("image_column", "label_column", "strict")}
    if names := [f"--{name}" for name, value in useless.items() if value]:
        raise InputError(
            f"{settings.data} holds embeddings, of which {', '.join(names)} can change nothing: leave out"
        )


def _learners(role: str) -> str:
    return " and ".join(name for name, task in TASKS.items() if role in task.learns_from)
