"""`hf_clip.evaluate`: how good trained models are on captioned or labelled images."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from transformers.utils import logging

from ..core.errors import InputError
from ..core.public import public_name
from ..core.temporary import temporary_folder
from ..data.given import Data
from ..data.sources import Source
from ..embeddings.encode import Embeddings
from ..embeddings.options import EmbedOptions
from ..models.modeling_hf_clip import HFClipModel
from ..models.processing_hf_clip import HFClipProcessor
from ..models.trained import TrainedModel, keep_modes, name_of, open_trained
from .data import EvaluationData, EvaluationSettings
from .outcome import Outcome
from .prompts import open_templates
from .records import ModelFacts, Results
from .report import RESULTS, Measured, Report, can_draw, draw, model_facts
from .report_folder import folder_in_run, prepare_folder
from .tasks.languages import evaluate_languages
from .tasks.registry import find_task, measure
from .tasks.task import Drawn

logger = logging.get_logger(__name__)

Models: TypeAlias = (
    TrainedModel | list[str] | list[Path] | list[str | Path] | list[TrainedModel] | Mapping[str, TrainedModel]
)


@keep_modes
def evaluate(
    model: Models,
    data: Data,
    settings: EvaluationSettings | None = None,
    *,
    output: str | Path | None = None,
    options: EmbedOptions | None = None,
) -> Results:
    """Measures trained models: every figure with its interval, its chance and how it was come by.

        hf_clip.evaluate("my_clip", "images/test")
        hf_clip.evaluate("my_clip", "images/test", hf_clip.EvaluationSettings(tasks=["zero-shot"]), output="report")

    Args:
        model: a folder, a Hub id, or the pair (model, processor); a list of such, or a mapping from names to them,
            compares them with the first.
        data: a source, by name or opened, or a folder that `embed` wrote.
        settings: what is measured, and how; default: what suits the data.
        output: the folder for `results.json`, `report.md` and images, which an earlier report may be in; default: of
            one model that is given by the folder of its run, a folder in `evaluation` there, which the log names, so
            that `publish` has the figures; of any other, nothing is written or drawn.
        options: how images and captions are embedded.

    Returns:
        What `results.json` holds: figures with all that each depends on, differences between models, notes, what was
        skipped.

    Raises:
        InputError: no such model or data; settings that contradict each other or the data; an image that cannot be
            read, where `options` are strict, or all of them.
    """
    settings = settings or EvaluationSettings()
    folder = None if output is None else prepare_folder(output, RESULTS)  # before the work
    open_templates(settings.templates)
    models = _by_name(model)
    if len(models) > 1 and importlib.util.find_spec("scipy") is None:
        raise InputError('to compare models needs scipy: pip install "hf_clip[eval]"')
    measured_on = EvaluationData(data, settings, options)
    if output is None:
        folder = _folder_in_run(model, measured_on)
    if len(models) > 1:  # not to find after hours that the last one cannot be opened
        for each in models.values():
            measured_on.check(open_trained(each)[0])
    report = Report(measured_on.facts, measured=[], resamples=settings.resamples)
    grids: list[str] = []
    with temporary_folder() as aside:
        for number, (name, each) in enumerate(models.items(), start=1):
            measuring = _Measuring(name, *open_trained(each), measured_on, report)
            measuring.measure()
            if folder is not None:
                grids += measuring.draw(aside, number if len(models) > 1 else None)
        if folder is None:
            return report.results()
        if can_draw():
            report.pictures, report.examples = draw(report.measured, aside) + grids, grids
        else:
            logger.warning('no images without matplotlib: pip install "hf_clip[eval]"')
        results = report.write(folder, aside)
    if output is None:
        logger.warning(f"the report is in {folder}, and is published with the model")
    return results


def _folder_in_run(model: Models, data: EvaluationData) -> Path | None:
    """Ready to be written; None where it cannot be, for nobody has asked for it."""
    folder = folder_in_run(model, data.facts, [*data.tasks, *data.languages])
    try:
        return folder and prepare_folder(folder, RESULTS)
    except InputError as error:
        logger.warning(f"the report is not written beside the model: {error}")
        return None


def _by_name(model: Models) -> dict[str, TrainedModel]:
    """Models by what they are called in the report; of folders of the same name, with those above them as far as it
    takes to tell them apart.

    Raises:
        InputError: a model twice, or none.
    """
    if isinstance(model, list | Mapping) and not model:
        raise InputError(f"model is an empty {type(model).__name__}: give one or more")
    if isinstance(model, Mapping):
        return dict(model)
    if not isinstance(model, list):
        return {name_of(model): model}
    given = [str(each) if isinstance(each, str | Path) else name_of(each) for each in model]
    if len({Path(each).resolve() for each in given}) < len(given):
        raise InputError(f"model {' '.join(given)} names a model twice: give each once, or a mapping with their names")
    called, parts = [public_name(each) for each in given], 1
    while len(set(called)) < len(called):
        parts += 1
        called = [
            str(Path(*Path(each).resolve().parts[-parts:])) if called.count(name) > 1 else name
            for each, name in zip(given, called, strict=True)
        ]
    return dict(zip(called, model, strict=True))


@dataclass
class _Measuring:
    """One model on the data: what it reaches goes into the report."""

    name: str
    model: HFClipModel
    processor: HFClipProcessor
    data: EvaluationData
    report: Report

    def measure(self) -> None:
        data, report = self.data, self.report
        facts = model_facts(self.model, self.name)
        if not isinstance(data.test, Source | None):
            facts.precision += ", stored as float16"
        self.embeddings, others = data.embed(self.model, self.processor)
        self.outcomes: dict[str, Outcome] = {}
        if self.embeddings is not None:
            for task in data.tasks:
                self.outcomes[task] = self._outcome(task, self.embeddings, others)
                report.measured.append(Measured(facts, task, self.outcomes[task]))
        report.skipped = self.embeddings.skipped if self.embeddings else []
        report.skipped_of = {role: other.skipped for role, other in others.items()}
        if data.languages:
            self._measure_languages(facts)

    def _outcome(self, task: str, embeddings: Embeddings, others: dict[str, Embeddings]) -> Outcome:
        learned_from = {"train": others.get("train"), "validation": others.get("validation")}
        settings = self.data.settings
        outcome = measure(task, self.model, self.processor, embeddings, settings, temperature=None, **learned_from)
        for role in find_task(task).learns_from:
            if role in others:
                outcome.protocol[f"{role}_data"] = self.data.facts_by_role[role].to_json()
        return outcome

    def _measure_languages(self, facts: ModelFacts) -> None:
        data, report = self.data, self.report
        skipped: list[tuple[int, str, str]] = []
        for task in map(find_task, data.language_tasks):
            how = (data.settings, data.options, task)
            outcomes = evaluate_languages(self.model, self.processor, data.languages, *how)
            for language, outcome in outcomes.items():
                measured = Measured(facts, f"{task.name}/{language}", outcome, data.fingerprints[language])
                report.measured.append(measured)
                skipped = outcome.details["skipped"]
        if data.tasks:
            report.skipped_of["languages"] = skipped
        else:
            report.skipped = skipped

    def draw(self, folder: Path, number: int | None) -> list[str]:
        """Images of the data as the model finds them; their file names, of several models with the model's number."""
        source = self.data.test
        if not isinstance(source, Source) or self.embeddings is None or not can_draw():
            return []
        suffix, names = f"_{number}" if number else "", []
        for task, outcome in self.outcomes.items():
            names += find_task(task).draw_examples(Drawn(source, self.embeddings, outcome), folder, suffix)
        return names
