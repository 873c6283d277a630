"""What is measured on: sources or stored embeddings, and the tasks that suit them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

from transformers import PreTrainedModel

from ..core.counts import check_count
from ..core.errors import InputError
from ..data.given import Data, called
from ..data.named_splits import ANY
from ..data.sources import Source, holds_classes, open_source
from ..embeddings.encode import Embeddings, embed_source, with_labels
from ..embeddings.manifest import MANIFEST, read_manifest
from ..embeddings.options import EmbedOptions
from ..embeddings.provenance import data_facts
from ..embeddings.store import check_made_by, open_embeddings
from ..models.processing_hf_clip import HFClipProcessor
from .prompts import open_class_names
from .records import DataFacts
from .tasks.registry import TASKS, find_task, suiting, tasks_for
from .tasks.task import Protocol

# A name that no column has: `None` would find the usual one, and what is not read need not be in order.
_NO_COLUMN = ""


@dataclass(frozen=True)
class EvaluationSettings(Protocol):
    """What is measured and how: all that a `Protocol` says, and how the data are read.

    Args:
        split, data_config, image_column, caption_column, label_column: of the data, as `open_source` has them; of data
            that are opened already there is nothing to say.
        tasks: by name, or module:Class of one of your own; default: those that suit the data.
        class_names: also a file of them, as `open_class_names` reads it, or a name a class.
        languages: columns of captions by language.
        train_data, validation_data: what knn and the linear probe learn from; with a split of each.
        resamples: of the confidence intervals' bootstrap.
    """

    split: str | None = None
    data_config: str | None = None
    image_column: str | None = None
    caption_column: str | None = None
    label_column: str | None = None
    tasks: Sequence[str] = ()
    languages: dict[str, str] = field(default_factory=dict)
    train_data: Data | None = None
    train_split: str | None = None
    validation_data: Data | None = None
    validation_split: str | None = None
    resamples: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("resamples", self.resamples)
        if not isinstance(self.languages, dict):
            raise InputError(f"languages are {self.languages!r}: give a dict of columns by language")
        if isinstance(self.tasks, str):  # its letters would be names of tasks, or classes
            object.__setattr__(self, "tasks", (self.tasks,))
        if isinstance(self.class_names, str):
            object.__setattr__(self, "class_names", open_class_names(self.class_names))
        elif isinstance(self.class_names, Path):
            raise InputError(f"class_names is a Path: give the name of a file as a text, {str(self.class_names)!r}")
        elif self.class_names is not None:
            names = [[each] if isinstance(each, str) else list(each) for each in self.class_names]
            object.__setattr__(self, "class_names", names)


class EvaluationData:
    """What is measured on, opened and looked through before the work begins.

    Args:
        data: to measure on.
        settings: of `EvaluationSettings`.
        options: how it is embedded.

    Raises:
        InputError: settings that contradict each other or the data.

    Attributes:
        tasks: of the data themselves; language_tasks: of each language.
        test: a source, or the embeddings of a folder that `hf-clip embed` wrote; None: only languages are measured.
        others: the same of "train" and "validation", where they were given.
        facts: of the data; facts_by_role: of `others`; fingerprints: of each language's captions and pictures.
    """

    def __init__(self, data: Data, settings: EvaluationSettings, options: EmbedOptions | None = None):
        self.data, self.settings, self.options = data, settings, options or EmbedOptions()
        self.tasks = list(dict.fromkeys(find_task(task).name for task in settings.tasks))
        self.language_tasks: list[str] = []
        for task in self.tasks:
            find_task(task).check_installed()
        _check_use(data, settings, self.options)
        self.test: Source | Embeddings | None = None
        self.languages = {
            language: self._read(data, captions_required=False, caption_column=column)
            for language, column in settings.languages.items()
        }
        if _is_stored(data):
            self.test = stored = open_embeddings(data)
            self.facts = _facts_of_stored(data)
            self.tasks = self.tasks or tasks_for(stored, named=bool(settings.class_names))
        else:
            self._open()
        if not (self.tasks or self.languages):
            raise InputError(
                f"{called(data)} has no captions and no named classes: give data that have either, class_names for "
                "labels that are numbers, or a task"
            )
        self.fingerprints = {name: data_facts(source)["fingerprint"] for name, source in self.languages.items()}
        self.others: dict[str, Source | Embeddings] = {}
        self.facts_by_role: dict[str, DataFacts] = {}
        for role in ("train", "validation"):
            if (other := getattr(settings, f"{role}_data")) is not None:
                self._open_other(role, other, getattr(settings, f"{role}_split") or (role,))
        self._check_sizes()

    def _open(self) -> None:
        """The data set, with captions only where a task needs them, and the tasks where none was asked for."""
        if self.languages:
            self.language_tasks = _by_language(self.tasks) or _by_language(suiting(captioned=True, classes=False))
            self.tasks = [task for task in self.tasks if task not in self.language_tasks]
        if not self.settings.tasks:
            self.tasks = self._default_tasks()
        source = next(iter(self.languages.values()), None)
        if self.tasks:
            labelled = any(find_task(task).needs_labels for task in self.tasks)
            self.test = source = self._open_source(self._captioned(), labelled)
        if source is not None:
            self.facts = DataFacts.from_json(data_facts(source))

    def _captioned(self) -> bool:
        return any(find_task(task).needs_captions for task in self.tasks)

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

    def _read(self, data: Data, **others: Any) -> Source:
        """The source as the settings would have it read; `others` stand above them."""
        if isinstance(data, Source):
            return _as_asked(data, **others)
        names = ("data_config", "image_column", "caption_column", "label_column")
        asked = {name: getattr(self.settings, name) for name in names} | {"split": self.settings.split or ANY} | others
        return open_source(data, **asked)

    def _open_source(self, captioned: bool, labelled: bool, data: Data | None = None, **others: Any) -> Source:
        classes = self.settings.class_names
        names = {"class_names": [of_class[0] for of_class in classes]} if classes else {}
        if not captioned and self.tasks:
            others = {"caption_column": _NO_COLUMN} | others
        data = self.data if data is None else data
        source = self._read(data, captions_required=captioned, labels_required=labelled, **names, **others)
        if labelled and self.tasks and source.label_column and not source.has_classes:
            raise InputError(f"rows of {source.name} have lists of labels, which are only numbers: give class_names")
        return source

    def _open_other(self, role: str, data: Data, split: str | tuple[str, ...]) -> None:
        if _is_stored(data):
            self.others[role], self.facts_by_role[role] = open_embeddings(data), _facts_of_stored(data)
            return
        source = self._open_source(False, True, data, split=split, caption_column=_NO_COLUMN)
        self.others[role], self.facts_by_role[role] = source, DataFacts.from_json(data_facts(source))

    def _check_sizes(self) -> None:
        """Before the work, as far as it is known: pictures may yet be skipped."""
        if self.test is not None:
            for task in self.tasks:
                find_task(task).check_size(self.settings, _count_images(self.test))
        for task in self.language_tasks:
            for source in self.languages.values():
                find_task(task).check_size(self.settings, len(source))

    def check(self, model: PreTrainedModel) -> None:
        """
        Raises:
            InputError: stored embeddings are another model's.
        """
        for data in (self.data, self.settings.train_data, self.settings.validation_data):
            if _is_stored(data):
                check_made_by(model, data)

    def embed(
        self, model: PreTrainedModel, processor: HFClipProcessor
    ) -> tuple[Embeddings | None, dict[str, Embeddings]]:
        """The data (or None), and by role what trains a probe and what its strength is chosen by."""
        self.check(model)
        others = {role: self._embedded(model, processor, data) for role, data in self.others.items()}
        test = None if self.test is None else self._embedded(model, processor, self.test, self._captioned())
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
        pooled = self.settings.features == "pooled"
        embeddings = embed_source(model, processor, data if captioned else bare, self.options, pooled=pooled)
        return with_labels(embeddings, data)


def _as_asked(
    source: Source,
    *,
    captions_required: bool = False,
    labels_required: bool = False,
    caption_column: str | None = None,
    class_names: Sequence[str] | None = None,
    **_: Any,
) -> Source:
    """An opened source, for what is measured of it.

    Raises:
        InputError: it was opened without what that takes.
    """
    if caption_column == _NO_COLUMN:
        source = replace(source, caption_column=None, captions_required=False)
    if captions_required and not source.has_captions:
        raise InputError(f"{source.name} was opened without captions: open it with caption_column")
    if labels_required and not source.label_column:
        raise InputError(f"{source.name} was opened without labels: open it with label_column")
    if class_names and source.class_names and not set(source.class_names) <= set(class_names):
        missing = next(name for name in source.class_names if name not in class_names)
        raise InputError(f"class_names lacks {missing!r}, a class of {source.name}: add it")
    return source if source.class_names or not class_names else replace(source, class_names=list(class_names))


def _is_stored(data: Data | None) -> TypeGuard[str | Path]:
    return isinstance(data, str | Path) and Path(data, MANIFEST).is_file()


def _facts_of_stored(path: str | Path) -> DataFacts:
    data = read_manifest(Path(path)).data
    return DataFacts(name=data.name, split="as embedded", fingerprint=data.fingerprint)


def _by_language(tasks: Sequence[str]) -> list[str]:
    return [task for task in tasks if find_task(task).by_language]


def _count_images(data: Source | Embeddings) -> int:
    return len(data) if isinstance(data, Source) else len(data.image_embeds)


def _check_use(data: Data, settings: EvaluationSettings, options: EmbedOptions) -> None:
    """
    Raises:
        InputError: settings that nothing would be done with.
    """
    learning = {role for task in settings.tasks for role in find_task(task).learns_from}
    if settings.train_data is not None and "train" not in learning:
        raise InputError(f"train_data is for {_learners('train')}: ask for one of these tasks, or leave it out")
    if settings.validation_data is not None and settings.train_data is None:
        raise InputError("validation_data needs train_data, which it is the validation of")
    if settings.validation_data is not None and "validation" not in learning:
        raise InputError(f"validation_data is for {_learners('validation')}: ask for this task, or leave it out")
    for role in ("train", "validation"):
        _check_split(role, getattr(settings, f"{role}_split"), getattr(settings, f"{role}_data"))
    given = [each for each in (data, settings.train_data, settings.validation_data) if each is not None]
    stored = [each for each in given if _is_stored(each)]
    if stored and settings.features == "pooled":
        raise InputError(f"{stored[0]} holds embeddings, not pooled features: give the data set")
    if not (_is_stored(data) or isinstance(data, Source)):
        return
    kind = _kind(data)
    if settings.languages:
        raise InputError(f"{called(data)} {kind}: for languages give the data set by name")
    useless: dict[str, object] = {"caption_column": settings.caption_column, "split": settings.split}
    if all(_is_stored(each) or isinstance(each, Source) for each in given):
        useless |= {name: getattr(settings, name) for name in ("data_config", "image_column", "label_column")}
    if len(stored) == len(given):
        useless |= {"strict": options.strict}
    if names := [name for name, value in useless.items() if value]:
        raise InputError(f"{called(data)} {kind}, so {', '.join(names)} can change nothing: leave out")


def _check_split(role: str, split: str | None, data: Data | None) -> None:
    if split and data is None:
        raise InputError(f"{role}_split needs {role}_data, which it is a split of")
    if split and (_is_stored(data) or isinstance(data, Source)):
        raise InputError(f"{called(data)} {_kind(data)}, so {role}_split can change nothing: leave out")


def _kind(data: Data) -> str:
    return "is opened already" if isinstance(data, Source) else "holds embeddings"


def _learners(role: str) -> str:
    return " and ".join(name for name, task in TASKS.items() if role in task.learns_from)
