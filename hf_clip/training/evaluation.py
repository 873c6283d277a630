"""A trainer's evaluation of image and text embeddings: a whole set over all processes, each row once."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from ..core.errors import InputError
from ..data.evaluation_set import EvaluationSet, positions_of
from ..data.images import broken_picture
from ..embeddings.encode import (
    EmbeddedBatch,
    Embeddings,
    embed_batch,
    join_batches,
    split_rows,
    with_labels,
)
from ..evaluation.outcome import Outcome
from ..evaluation.tasks.registry import find_task, measure, suiting, tasks_for
from ..models.modeling_hf_clip import HFClipOutput
from .arguments import HFClipTrainingArguments
from .base import BaseTrainer
from .data_sets import DataOpener
from .distributed import GatheredBatch
from .half_precision import in_half_precision
from .inherited import refuse_arguments
from .loaders import make_loader, seed_of_workers
from .own_metrics import own_metrics, predictions_of
from .parts import check_pixels
from .processes import check_same_rows, gather_objects, share_statistics, whole

logger = logging.get_logger(__name__)


class EmbeddingTrainer(BaseTrainer):
    """Evaluates a dual encoder: `evaluate()` measures `eval_tasks` on a `CaptionedImages`, and `predict()` gives its
    embeddings too."""

    args: HFClipTrainingArguments
    opener: DataOpener

    @abstractmethod
    def loss_of_batch(self, output: HFClipOutput, world: GatheredBatch) -> Tensor:
        """Of the pairs of all processes."""

    def set_to_evaluate(self, given: Any) -> Any:
        """A data set in place of what has to be opened; the name of one of several stays."""
        if isinstance(given, str) and isinstance(self.eval_dataset, dict) and given in self.eval_dataset:
            return given
        dataset = self.opener.evaluation_set(given)
        processor: Any = self.processing_class
        if processor is not None:
            check_pixels("eval_dataset", dataset, processor)
        return dataset

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As the Trainer has it, of all that `eval_dataset` of the constructor takes."""
        return super().evaluate(self.set_to_evaluate(eval_dataset), *args, **kwargs)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Every row of a set, or of the one of that name, in order and once, over all processes.

        Nothing of training has a say in it but its workers: neither its sampler nor `dataloader_drop_last`, nor what
        accelerate is told of batches. It is made anew each time, so it is never that of another set.
        """
        dataset = self.set_to_evaluate(eval_dataset)
        if isinstance(dataset, str):
            dataset = self.eval_dataset[dataset]
        elif dataset is None:
            dataset = self.eval_dataset
        if dataset is None or isinstance(dataset, dict):
            raise InputError(
                "there is no evaluation set: give eval_dataset"
                if dataset is None
                else f"there are several evaluation sets: give the name of one, of {', '.join(dataset)}"
            )
        rows = EvaluationSet.of(dataset)
        if not len(rows):
            raise InputError(f"the evaluation set {rows.name} has no rows")
        args = self.args
        batches: Any = _batches_of_process(len(rows), args.eval_batch_size, args.process_index, args.world_size)
        how = {"batch_sampler": batches, "generator": seed_of_workers(args)}
        return make_loader(args, rows, self.data_collator, **how)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """As of an evaluation set."""
        return self.get_eval_dataloader(test_dataset)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Embeds the data set over all processes, once a row, and measures `eval_tasks` on it.

        `predictions` are (image_embeds, text_embeds), `label_ids` each caption's image: a row of `image_embeds`.
        """
        refuse_arguments({"evaluate.ignore_keys": ignore_keys})
        tasks = self.tasks_of(dataloader.dataset)
        self.callback_handler.eval_dataloader = dataloader
        with self.averaged_weights():
            embeddings = self.embed(dataloader, description, announced=True)
            figures = self.figures(embeddings, self.measure(embeddings, tasks))
            metrics = {f"{metric_key_prefix}_{name}": value for name, value in figures.items()}
        shown: Any = (None, None) if self.args.prediction_loss_only else predictions_of(embeddings)
        return EvalLoopOutput(
            predictions=shown[0],
            label_ids=shown[1],
            metrics=metrics,
            num_samples=len(embeddings.image_embeds),
        )

    def measure(self, embeddings: Embeddings, tasks: Sequence[str]) -> dict[str, Outcome]:
        """What each task finds on a set that is already embedded."""
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        processor: Any = self.processing_class
        return {
            task: measure(task, model, processor, embeddings, self.args.protocol, temperature=self.temperature())
            for task in tasks
        }

    def figures(self, embeddings: Embeddings, outcomes: dict[str, Outcome]) -> dict[str, float]:
        """What `evaluate()` says of such a set, without its prefix."""
        figures: dict[str, float] = {}
        for outcome in outcomes.values():
            figures |= outcome.metrics
        if self.compute_metrics is not None:
            figures |= own_metrics(self.compute_metrics, embeddings, figures)
        return figures | ({"loss": self._loss_of(embeddings)} if len(embeddings.text_embeds) else {})

    def tasks_of(self, dataset: Any) -> Sequence[str]:
        """Those of `eval_tasks`, or else those that suit the data; none where `prediction_loss_only`.

        Raises:
            InputError: of several sources, a task that asks for labels that not all of them have; none suits them all.
        """
        if self.args.prediction_loss_only:
            return []
        rows = EvaluationSet.of(dataset)
        asked = self.args.eval_tasks
        if rows.without_labels and (not asked or any(find_task(task).needs_labels for task in asked)):
            if asked or not rows.caption_column:
                raise InputError(rows.without_labels)
            logger.warning_once(f"only {' and '.join(tasks_for(rows))} is measured: {rows.without_labels}")
        tasks = asked or (tasks_for(rows) if rows.is_known else suiting(captioned=True, classes=False))
        if not tasks and len(rows.sources) > 1:
            raise InputError(f"{rows.name} have neither captions nor named classes in common: evaluate them apart")
        return tasks

    def embed(self, dataloader: DataLoader, description: str = "embedding", announced: bool = False) -> Embeddings:
        """All rows of an evaluation loader, from all processes, each once.

        Args:
            announced: to the callbacks, batch by batch: the Trainer's own then shows how far it is.
        """
        if self.model is None:
            raise InputError("a search leaves no model to evaluate: call train(), which makes a new one")
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        if not self.is_in_train and model.device != self.args.device:
            model.to(self.args.device)
        evaluated = EvaluationSet.of(dataloader.dataset)
        check_same_rows(evaluated.layout.digest if evaluated.is_wrapped else "", "the evaluation set")
        share_statistics(model)
        model.eval()
        skipped: list[tuple[int, str, str]] = []

        def embedded() -> Iterator[EmbeddedBatch]:
            quiet = self.args.disable_tqdm or announced
            progress = tqdm(dataloader, desc=description, disable=quiet, leave=False)
            for rows, batch in zip(dataloader.batch_sampler, progress, strict=True):
                batch["rows"] = positions_of(batch, rows)
                # Batch by batch: gathered all at once they would take their memory several times.
                for part, left_out in gather_objects(self._embed_batch(model, batch)):
                    skipped.extend(left_out)
                    if part:
                        yield part
                if announced:
                    self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)

        with in_half_precision(model, self._full_eval_dtype()):
            embeddings = join_batches(embedded(), skipped)
        return with_labels(embeddings, evaluated)

    def _full_eval_dtype(self) -> torch.dtype | None:
        """As the Trainer has it, evaluations in between are in the precision that is trained in."""
        asked = {torch.float16: self.args.fp16_full_eval, torch.bfloat16: self.args.bf16_full_eval}
        return next((dtype for dtype, wanted in asked.items() if wanted and not self.is_in_train), None)

    def _embed_batch(
        self, model: PreTrainedModel, batch: dict[str, Any]
    ) -> tuple[EmbeddedBatch | None, list[tuple[int, str, str]]]:
        """What this process's batch gives (None where no picture of it could be read), and what was skipped."""
        skipped = batch.pop("skipped")
        if self.args.strict and skipped:
            raise broken_picture(*skipped[0])
        if not len(batch["rows"]):
            if self.is_fsdp_enabled:  # the other processes wait for this one's part of the weights
                self._embed_blank(model)
            return None, skipped
        with self.autocast_smart_context_manager():
            inputs = self.normalized(self._prepare_inputs(batch))
            return embed_batch(model, inputs, pooled=self.args.eval_features == "pooled"), skipped

    def _embed_blank(self, model: PreTrainedModel) -> None:
        processor: Any = self.processing_class
        blank = processor(images=Image.new("RGB", (64, 64)), text="", return_tensors="pt")
        with torch.inference_mode(), self.autocast_smart_context_manager():
            model(**self._prepare_inputs(dict(blank)), return_logits=False)

    @torch.no_grad()
    def _loss_of(self, embeddings: Embeddings) -> float:
        """The mean over batches of the training size: images that have captions, each with its first, in row order."""
        size = self.args.train_batch_size * self.args.world_size
        captioned = embeddings.text_to_image.unique()
        first = torch.searchsorted(embeddings.text_to_image, torch.arange(len(embeddings.image_embeds)))
        scale, bias = self.temperature()
        total = 0.0
        for images in captioned.split(size):
            batch = GatheredBatch(
                embeddings.image_embeds[images],
                embeddings.text_embeds[first[images]],
                embeddings.image_ids[images] if self.args.mask_duplicates else None,
                embeddings.caption_ids[first[images]] if self.args.mask_duplicates else None,
            )
            output = HFClipOutput(
                image_embeds=batch.image_embeds, text_embeds=batch.text_embeds, logit_scale=scale, logit_bias=bias
            )
            total += self.loss_of_batch(output, batch).item() * len(images)
        return total / len(captioned)

    def temperature(self) -> tuple[Tensor, Tensor | None]:
        """(logit_scale, logit_bias), whole and on the CPU."""
        model = self.accelerator.unwrap_model(self.model)
        bias = model.logit_bias
        return whole(model.logit_scale).cpu(), None if bias is None else whole(bias).cpu()


def _batches_of_process(rows: int, size: int, process: int, processes: int) -> list[range]:
    """One process's batches of rows in their order. Each process has as many as the others: where the batches do not
    come out even, the last one comes again, which is known by its rows."""
    batches = split_rows(range(rows), size)
    rounds = -(-len(batches) // processes)
    return [batches[min(i, len(batches) - 1)] for i in range(process, rounds * processes, processes)]
