"""The `transformers` Trainer for dual encoders: global-batch loss, retrieval in `evaluate()`, whole checkpoints."""

import contextlib
import copy
import inspect
import json
import os
from collections.abc import Callable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from tqdm.auto import tqdm
from transformers import EarlyStoppingCallback, PreTrainedModel, Trainer, TrainerCallback, set_seed
from transformers.trainer import PREFIX_CHECKPOINT_DIR, TRAINER_STATE_NAME
from transformers.trainer_pt_utils import get_length_grouped_indices
from transformers.trainer_utils import EvalLoopOutput, HubStrategy, TrainOutput
from transformers.utils import logging
from transformers.utils.hub import PushInProgress

from ..core.atomic import STAGING, discard, replace, staged, writing
from ..core.errors import InputError, NotFinite, first_line
from ..data.evaluation_set import EvaluationSet, positions_of
from ..data.images import broken_picture, skipped_line
from ..data.pixels import PixelNormalization
from ..data.streaming import StreamedPairs
from ..data.wrappers import WrappedPairs, as_pairs
from ..embeddings.encode import EmbeddedBatch, Embeddings, embed_batch, is_convolutional, join_batches, with_labels
from ..evaluation.outcome import Outcome
from ..evaluation.tasks.registry import Protocol, measure, tasks_for
from ..models.modeling_hf_clip import HFClipModel, HFClipOutput
from ..publishing.card.facts import is_hub_id
from ..publishing.card.render import CardDetails, write_card
from ..publishing.hub import look_first, open_repository
from ..publishing.staging import TRAINING, Content
from .arguments import HFClipTrainingArguments
from .averaging import LAST_WEIGHTS, WeightAverage
from .checkpoints import remove_oldest
from .data_wait import DataWait
from .distributed import (
    GlobalBatch,
    batches_of_process,
    check_processes,
    check_same_rows,
    check_same_settings,
    gather_batch,
    gather_objects,
    in_batch_accuracy,
    loss_of_global_batch,
    shard_by_blocks,
    share_statistics,
    wants_fsdp,
)
from .evaluation_checks import check_evaluation
from .facts import Origin, training_facts
from .feature_cache import UseFrozenFeatures
from .gradient_cache import GradientCache
from .half_precision import in_half_precision
from .inherited import refuse_arguments
from .interrupt import StopOnInterrupt
from .own_loss import own_loss
from .own_metrics import own_metrics, predictions_of
from .parameter_groups import parameter_groups
from .parts import (
    batches_of,
    check_arguments,
    check_parts,
    check_steps,
    enough_for_batch_norm,
    freeze,
    learns_statistics,
)
from .pushes import SKIPPED_IMAGES, finish, give_up, in_own_words, push_checkpoint, push_run, remove_staging
from .search import check_search, objective_of

logger = logging.get_logger(__name__)


class HFClipTrainer(Trainer):
    """Trains an `HFClipModel` on items of `TrainingPairs`, batched by `HFClipCollator`.

    Every `Trainer` argument works as it does there. Beyond it: the loss is that of the global batch over all
    processes; a frozen tower stays in evaluation mode; the temperature is clamped after each step; `evaluate()`
    gives retrieval recalls of a `CaptionedImages`, and `predict()` its embeddings too; a checkpoint is never half
    written. Both kinds of sets may stand in torch's `Subset` and `ConcatDataset`, at any depth.

    `skipped_images` holds the pictures that could not be read so far: row → (name, reason).

    Args:
        origin: what the towers and the pictures are, for the model card.
    """

    args: HFClipTrainingArguments
    model: HFClipModel

    # Losses are means over a batch: accumulated steps are averaged, those of a `compute_loss_func` too.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: HFClipModel | None = None,
        args: HFClipTrainingArguments | None = None,
        *others: Any,
        origin: Origin | None = None,
        **kwargs: Any,
    ):
        given = inspect.signature(Trainer.__init__).bind(self, model, args, *others, **kwargs).arguments
        del given["self"]
        refuse_arguments(given)
        args = given["args"] = args or HFClipTrainingArguments("tmp_trainer")
        check_arguments(args)
        check_processes(args)
        if model is None:
            model = self._first_model = self._make_first_model(given.get("model_init"), args)
        check_parts(model, given)
        self.origin = origin or Origin()
        if wants_fsdp(args):
            shard_by_blocks(model)
        given["data_collator"] = batches_of(given.get("data_collator"), model, given.get("processing_class"))
        super().__init__(**given)
        self.resumed = False
        self.skipped_images: dict[int, tuple[str, str]] = {}
        self.skipped_everywhere: list[list[Any]] = []  # as all processes last said together
        image_processor = getattr(self.processing_class, "image_processor", None)
        self._normalize = PixelNormalization.of(image_processor) if image_processor else None
        self._own_callbacks: list[TrainerCallback] = []
        self._take_up(model)
        if args.gradient_accumulation_steps > 1:
            logger.warning(
                f"gradient_accumulation_steps={args.gradient_accumulation_steps} averages gradients of separate "
                f"batches: each pair still has the negatives of one batch only. A larger batch needs a larger "
                f"per_device_train_batch_size (gradient_cache_chunk_size makes it fit) or more processes."
            )

    def _take_up(self, model: HFClipModel) -> None:
        """Makes a model ready to be trained by the arguments: the one given, or each that `model_init` makes."""
        args = self.args
        self._frozen = freeze(model, args)
        if not wants_fsdp(args) and args.channels_last and is_convolutional(model):  # FSDP shards no layout
            model.vision_model.to(memory_format=torch.channels_last)  # type: ignore[call-arg]
        self._learns_statistics = any(map(learns_statistics, model.modules()))
        check_steps(args, model, self.is_fsdp_enabled, self.is_deepspeed_enabled)
        self._meters: dict[str, Tensor] = {}
        self._cache: GradientCache | None = None
        self._average = WeightAverage(args.ema_decay) if args.ema_decay else None
        self._data_wait = DataWait()
        for callback in self._own_callbacks:
            self.remove_callback(callback)
        self._own_callbacks = [self._data_wait, _ClampTemperature(), _AnnounceEpoch()]
        if args.cache_frozen_features:
            self._own_callbacks.append(UseFrozenFeatures(self))
        if self._average:
            self._own_callbacks.append(self._average)
        if args.early_stopping_patience is not None:
            self._own_callbacks.append(EarlyStoppingCallback(args.early_stopping_patience))
        for callback in self._own_callbacks:
            self.add_callback(callback)

    def _make_first_model(self, model_init: Callable | None, args: HFClipTrainingArguments) -> Any:
        """What the Trainer would make as it is made itself, before that: its processes and parts depend on it."""
        if model_init is None:
            raise InputError("there is nothing to train: give a model, or model_init, which makes one")
        set_seed(args.seed)
        self.model_init = model_init
        return super().call_model_init()

    def call_model_init(self, trial: Any = None) -> Any:
        """As the Trainer does it, once the first model is taken."""
        first, self._first_model = self._first_model, None
        return super().call_model_init(trial) if first is None else first

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """As the Trainer does it, once all processes have compared their settings.

        Raises:
            InputError: for settings that differ between processes; for an evaluation that cannot be.
        """
        given = inspect.signature(Trainer.train).bind(self, resume_from_checkpoint, *args, **kwargs).arguments
        refuse_arguments({f"train.{name}": value for name, value in given.items()})
        self._resumes_from = (
            last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint or None
        )
        self.resumed = self._resumes_from is not None
        self._train_batch_size = self.args.train_batch_size  # a search may have left that of its last trial
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        except KeyboardInterrupt:
            give_up(self._pushes)  # else Python would wait for their thread
            raise
        finally:
            self.is_in_train = False

    _first_model: HFClipModel | None = None
    _resumes_from: str | None = None
    _settings_of_search: dict[str, Any] | None = None

    def _hp_search_setup(self, trial: Any) -> None:
        """Called once the model to train is there: of a trial, with settings of its own on top of those given."""
        if trial is not None and self._settings_of_search is not None:
            vars(self.args).update(self._settings_of_search)
        super()._hp_search_setup(trial)
        if trial is not None:
            check_arguments(self.args)
        if self.model_init is not None:
            self._take_up(self.model)
        others = {
            "number of training pairs": len(self.train_dataset) if isinstance(self.train_dataset, Sized) else None,
            "the checkpoint to go on from": Path(self._resumes_from).name if self._resumes_from else None,
        }
        pairs = as_pairs(self.train_dataset)  # a wrapper that would hide epochs is refused before anything begins
        check_same_settings(self.args, self.model, others)
        check_same_rows(pairs.layout.digest if isinstance(pairs, WrappedPairs) else "", "the training set")
        sets = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"": self.eval_dataset}
        check_evaluation(self.args, sets, self.tasks_of, self.compute_metrics is not None)

    def hyperparameter_search(  # type: ignore[override]
        self,
        hp_space: Callable | None = None,
        compute_objective: Callable[[dict[str, float]], float] | None = None,
        n_trials: int = 20,
        direction: str | list[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the Trainer does it, each trial with a new model of `model_init`, and the settings given but for its own.

        Args:
            compute_objective: default: `metric_for_best_model`, or the evaluation's loss.
            direction: default: the better one for that metric.

        Raises:
            InputError: there is no `model_init`; for an objective that is of no evaluation set; for trials at once.
        """
        check_search(self, kwargs)
        if compute_objective is None:
            compute_objective, better = objective_of(self.args, self.eval_dataset)
            direction = direction or better
        self._settings_of_search = copy.copy(vars(self.args))
        try:
            return super().hyperparameter_search(
                hp_space, compute_objective, n_trials, direction or "minimize", **kwargs
            )
        finally:
            vars(self.args).update(self._settings_of_search)
            self._settings_of_search = self.hp_search_backend = None

    # ---- the step -------------------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of the global batch; see `training.distributed`. This process's part of it may be empty."""
        for module in self._frozen:
            module.eval()  # the Trainer has just put the whole model into train mode
        for row, name, reason in inputs.pop("skipped"):
            self._report_skipped(row, name, reason)
        inputs.pop("rows", None)
        if (inputs.pop("caption_counts") != 1).any():
            raise InputError("a training item needs one caption: train on TrainingPairs, not on CaptionedImages")
        ids = {name: inputs.pop(name) for name in ("image_ids", "caption_ids")}
        captions_cut = inputs.pop("captions_cut", None)  # a collator of one's own need not count them
        with enough_for_batch_norm():
            output = self._output(model, inputs)
        ids = ids if self.args.mask_duplicates else {}
        world = gather_batch(output.image_embeds, output.text_embeds, **ids)
        loss = self._loss(output, world)
        self._stop_if_not_finite(loss, world)
        pairs = len(output.text_embeds)
        if captions_cut is not None:
            self._meter("captions_cut", captions_cut.sum(), pairs)
        # Of a thousand pictures the share is known well enough; of all it would cost a fourth of the loss.
        looked_at = min(pairs, 1024)
        self._meter("in_batch_accuracy", in_batch_accuracy(world, looked_at), looked_at)
        return (loss, output) if return_outputs else loss

    def _output(self, model: nn.Module, inputs: dict[str, Any]) -> HFClipOutput:
        if not self.args.gradient_cache_chunk_size:
            return model(**self._normalized(inputs), return_logits=False)
        self._cache = GradientCache(
            inputs,
            self.args.gradient_cache_chunk_size,
            self.args.gradient_cache_text_chunk_size,
            prepare=self._normalized,
            context=self.compute_loss_context_manager,
            least_images=2 if self._learns_statistics else 1,
        )
        return self._cache.embed(model)

    push_in_progress: Any = None
    hub_model_id: Any

    def _loss(self, output: HFClipOutput, world: GlobalBatch) -> Tensor:
        if self.compute_loss_func is not None:
            return own_loss(self.compute_loss_func, output, world)
        return loss_of_global_batch(output, world, self.args.loss_tile_size)

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """The Trainer's step; with a gradient cache it comes as far as the embeddings, and goes on from there."""
        loss = super().training_step(model, *args, **kwargs)
        if self._cache:
            self._cache.backward(model)
            self._cache = None
        return loss

    def _normalized(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inputs with 8-bit pixels as the model wants them."""
        pixels = inputs.get("pixel_values")  # none where the batch brings pooled_image, of a frozen tower
        if pixels is None or pixels.dtype != torch.uint8:
            return inputs
        if self._normalize is None:
            raise InputError("training pictures wait as 8-bit pixels: give the trainer processing_class=processor")
        return inputs | {"pixel_values": self._normalize(pixels)}

    def _stop_if_not_finite(self, loss: Tensor, world: GlobalBatch) -> None:
        """Every process sees the same loss, and stops at the same step."""
        if loss.isfinite():
            return
        towers = {"image": world.image_embeds, "text": world.text_embeds}
        broken = [f"the {tower} tower's embeddings" for tower, embeds in towers.items() if not embeds.isfinite().all()]
        raise NotFinite(
            f"step {self.state.global_step + 1}: {' and '.join(broken) or 'the temperature or the loss'} became NaN "
            "or infinite: lower learning_rate, or lengthen warmup_steps"
        )

    def create_optimizer(self, model: PreTrainedModel | None = None) -> torch.optim.Optimizer:
        """Any optimiser that `TrainingArguments` names, or `optimizer_cls_and_kwargs`, over `parameter_groups`."""
        if self.optimizer is not None:
            return super().create_optimizer(model)
        opt_model = self.model if model is None else model
        given = self.optimizer_cls_and_kwargs
        optimizer_class, kwargs = given or self.get_optimizer_cls_and_kwargs(self.args, opt_model)
        groups = parameter_groups(opt_model, self.args, kwargs.get("lr"))
        self.optimizer_cls_and_kwargs = (optimizer_class, {"params": groups} | kwargs)
        try:
            return super().create_optimizer(model)
        finally:
            self.optimizer_cls_and_kwargs = given

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the temperature, and the means since the last log of what each step measured on all processes."""
        if "loss" in logs:
            logs["temperature"] = (-_whole(self.accelerator.unwrap_model(self.model).logit_scale)).exp().item()
            for name, meter in self._meters.items():
                total, count = self.accelerator.reduce(meter).tolist()
                logs[name] = total / max(count, 1)
            self._meters.clear()
            waited, total = self.accelerator.reduce(
                torch.tensor(self._data_wait.take(), device=self.args.device)
            ).tolist()
            logs["data_wait"] = waited / max(total, 1e-9)
        super().log(logs, start_time)

    def _meter(self, name: str, total: Tensor, count: int) -> None:
        step = torch.stack([total.detach().float(), torch.tensor(float(count), device=total.device)])
        self._meters[name] = self._meters[name] + step if name in self._meters else step

    def _report_skipped(self, row: int, name: str, reason: str) -> None:
        self._stop_if_strict(row, name, reason)
        if row not in self.skipped_images:
            self.skipped_images[row] = (name, reason)
            logger.warning(f"skipped {skipped_line(row, name, reason)}")

    def skipped_in_all_processes(self) -> list[list[Any]]:
        """[row, name, reason] of each picture that no process could read, by row."""
        parts = gather_objects(self.skipped_images)
        together = {row: why for part in parts for row, why in part.items()}
        self.skipped_everywhere = [[row, *why] for row, why in sorted(together.items())]
        return self.skipped_everywhere

    def _stop_if_strict(self, row: int, name: str, reason: str) -> None:
        if self.args.strict:
            raise broken_picture(row, name, reason)

    # ---- data -----------------------------------------------------------------------------------------------------

    def get_batch_samples(self, *args: Any) -> Any:
        """As the Trainer does it; the share of the steps that it takes is logged as `data_wait`."""
        return self._data_wait.fetch(lambda: super(HFClipTrainer, self).get_batch_samples(*args))

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """A stream is dealt out to the processes already; accelerate would have each of them read all of it."""
        if not isinstance(self.train_dataset, StreamedPairs):
            self._check_batches()
            return super().get_train_dataloader()
        return self._own_loader(
            self.train_dataset,
            batch_size=self.args.train_batch_size,
            drop_last=self.args.dataloader_drop_last,
            persistent_workers=self.args.dataloader_persistent_workers,
            in_order=self.args.dataloader_in_order,
        )

    def _own_loader(self, dataset: Any, **batches: Any) -> torch.utils.data.DataLoader:
        """Without accelerate, which would deal the rows out itself."""
        workers = self.args.dataloader_num_workers
        return torch.utils.data.DataLoader(
            dataset,
            collate_fn=self.data_collator,
            num_workers=workers,
            pin_memory=self.args.dataloader_pin_memory,
            prefetch_factor=self.args.dataloader_prefetch_factor if workers else None,
            multiprocessing_context=self.args.dataloader_multiprocessing_context if workers else None,
            generator=self._seed_of_workers(),
            **batches,
        )

    def _check_batches(self) -> None:
        loading: Any = self.args.accelerator_config
        if self.args.world_size > 1 and (
            loading.split_batches or loading.dispatch_batches or not loading.even_batches
        ):
            raise InputError(
                "split_batches, dispatch_batches and even_batches=False of accelerator_config would tear the batch of "
                "several processes apart: leave them out"
            )
        if not (isinstance(self.train_dataset, Sized) and self.args.dataloader_drop_last):
            return
        pairs, batch = len(self.train_dataset), self._train_batch_size * self.args.world_size
        if pairs < batch:
            raise InputError(
                f"{pairs} training pairs make no whole batch of {batch}: set a smaller per_device_train_batch_size "
                "or dataloader_drop_last=False"
            )

    def _seed_of_workers(self) -> torch.Generator:
        """Of their own: a resumed run starts some that in the whole one are running, which must not move what dropout
        draws from."""
        return torch.Generator().manual_seed(self.args.seed)

    def _get_dataloader(self, dataset: Any, *args: Any, **kwargs: Any) -> torch.utils.data.DataLoader:
        """Reads torch's wrappers as the sets within them."""
        loader: Any = super()._get_dataloader(as_pairs(dataset), *args, **kwargs)
        loader.base_dataloader.generator = self._seed_of_workers()
        return loader

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        """Knows the captions' lengths for `train_sampling_strategy="group_by_length"`."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length" or not hasattr(dataset, "caption_lengths"):
            return super()._get_train_sampler(train_dataset)
        batch = self.args.train_batch_size * self.args.world_size * self.args.gradient_accumulation_steps
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return _ByLength(dataset, batch, seed)

    # ---- evaluation -----------------------------------------------------------------------------------------------

    def get_eval_dataloader(self, eval_dataset: Any = None) -> torch.utils.data.DataLoader:
        """Every row of a set, or of the one of that name, in order and once, over all processes.

        Nothing of training has a say in it but its workers: neither its sampler nor `dataloader_drop_last`, nor what
        accelerate is told of batches. It is made anew each time, so it is never that of another set.
        """
        by_name = isinstance(eval_dataset, str)
        dataset = self.eval_dataset if by_name or eval_dataset is None else eval_dataset
        if by_name:
            dataset = dataset[eval_dataset]
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
        batches: Any = batches_of_process(len(rows), args.eval_batch_size, args.process_index, args.world_size)
        return self._own_loader(rows, batch_sampler=batches)

    def get_test_dataloader(self, test_dataset: Any) -> torch.utils.data.DataLoader:
        """As of an evaluation set."""
        return self.get_eval_dataloader(test_dataset)

    def evaluation_loop(
        self,
        dataloader: torch.utils.data.DataLoader,
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
        with self._averaged_weights():
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
            task: measure(task, model, processor, embeddings, self._protocol, temperature=self._temperature())
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

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        try:
            return super()._determine_best_metric(metrics, trial)
        except KeyError as error:
            raise InputError(
                f"metric_for_best_model {self.args.metric_for_best_model!r} is none of the figures: choose one of "
                f"{', '.join(metrics)}"
            ) from error

    def tasks_of(self, dataset: Any) -> Sequence[str]:
        """Those of `eval_tasks`, or else those that suit the data; none where `prediction_loss_only`.

        Raises:
            InputError: of several sources, a task that asks for labels that not all of them have; none suits them all.
        """
        if self.args.prediction_loss_only:
            return []
        rows = EvaluationSet.of(dataset)
        asked = self.args.eval_tasks
        if rows.without_labels and (not asked or set(asked) - {"retrieval"}):
            if asked or not rows.caption_column:
                raise InputError(rows.without_labels)
            logger.warning_once(f"only retrieval is measured: {rows.without_labels}")
        tasks = asked or (tasks_for(rows) if rows.is_known else ["retrieval"])
        if not tasks and len(rows.sources) > 1:
            raise InputError(f"{rows.name} have neither captions nor named classes in common: evaluate them apart")
        return tasks

    @property
    def _protocol(self) -> Protocol:
        return Protocol(
            ks=self.args.eval_k,
            templates=self.args.eval_templates,
            features=self.args.eval_features,
            neighbours=self.args.eval_neighbours,
        )

    def embed(
        self, dataloader: torch.utils.data.DataLoader, description: str = "embedding", announced: bool = False
    ) -> Embeddings:
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
        for entry in skipped:
            self._stop_if_strict(*entry)
        if not len(batch["rows"]):
            if self.is_fsdp_enabled:  # the other processes wait for this one's part of the weights
                self._embed_blank(model)
            return None, skipped
        with self.autocast_smart_context_manager():
            inputs = self._normalized(self._prepare_inputs(batch))
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
        scale, bias = self._temperature()
        total = 0.0
        for images in captioned.split(size):
            batch = GlobalBatch(
                embeddings.image_embeds[images],
                embeddings.text_embeds[first[images]],
                embeddings.image_ids[images] if self.args.mask_duplicates else None,
                embeddings.caption_ids[first[images]] if self.args.mask_duplicates else None,
            )
            output = HFClipOutput(
                image_embeds=batch.image_embeds, text_embeds=batch.text_embeds, logit_scale=scale, logit_bias=bias
            )
            total += self._loss(output, batch).item() * len(images)
        return total / len(captioned)

    def _temperature(self) -> tuple[Tensor, Tensor | None]:
        """(logit_scale, logit_bias), whole and on the CPU."""
        model = self.accelerator.unwrap_model(self.model)
        bias = model.logit_bias
        return _whole(model.logit_scale).cpu(), None if bias is None else _whole(bias).cpu()

    def _averaged_weights(self) -> contextlib.AbstractContextManager:
        return self._average.in_place(self.model) if self._average else contextlib.nullcontext()

    # ---- saving ---------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The Trainer's checkpoint, written aside and renamed when every process has finished its part.

        Raises:
            NotFinite: the weights are not: the checkpoint before is the last good one.
        """
        self.check_finite()
        run = Path(super()._get_output_dir(trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        aside = run / STAGING / name
        if self.args.should_save:
            discard(aside)
        self.accelerator.wait_for_everyone()
        with writing(aside):
            self._staging = run / STAGING
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._staging = None
            self.accelerator.wait_for_everyone()
            skipped = self.skipped_in_all_processes()
            best = run / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
            if self.state.best_global_step and (best.exists() or best.name == name):
                self.state.best_model_checkpoint = str(best)
            if self.args.should_save:
                self.state.save_to_json(str(aside / TRAINER_STATE_NAME))
                (aside / SKIPPED_IMAGES).write_text(json.dumps(skipped))
                replace(aside, run / name)
        if self.args.should_save:
            discard(aside)
            if self.args.push_to_hub:
                self._push_checkpoint(run / name)
            remove_oldest(run, self.args.save_total_limit, {name, Path(self.state.best_model_checkpoint or "").name})
        self.accelerator.wait_for_everyone()

    def check_finite(self) -> None:
        """
        Raises:
            NotFinite: for weights, or BatchNorm's running statistics, that are NaN or infinite.
        """
        for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers()):
            if not _whole(tensor.detach().isfinite().all()):
                raise NotFinite(f"step {self.state.global_step}: {name} is NaN or infinite, and was not saved")

    _staging: Path | None = None

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging else super()._get_output_dir(trial)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Saves the model, file by file atomically where the folder exists."""
        if self._staging is not None:
            with self._averaged_weights():
                super()._save(output_dir, state_dict)
            if self._average and self.args.should_save:
                self._average.save_last_weights(self.model, output_dir)
            return
        if not self.args.should_save:
            return
        with staged(output_dir or self.args.output_dir) as aside:
            super()._save(str(aside), state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        try:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        except (OSError, SafetensorError, RuntimeError, ValueError) as error:
            raise InputError(
                f"checkpoint {resume_from_checkpoint} cannot be gone on from ({first_line(error)}): give an older one"
            ) from error
        if self._average and Path(resume_from_checkpoint, LAST_WEIGHTS).is_file():
            self._average.resume(self.model, resume_from_checkpoint)

    def _init_training_state(self, max_steps: int, steps: int, epochs: int, checkpoint: str | None, trial: Any) -> Any:
        """(epochs, batches of the next one) that were trained: all, where a run was cut after its last step."""
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, EarlyStoppingCallback):
                callback.early_stopping_patience_counter = 0  # of the training before; a checkpoint has its own
        trained = super()._init_training_state(max_steps, steps, epochs, checkpoint, trial)
        skipped = Path(checkpoint or "", SKIPPED_IMAGES)
        if checkpoint and skipped.is_file():
            self.skipped_images = {row: (name, reason) for row, name, reason in json.loads(skipped.read_text())}
        return (epochs, 0) if self.state.global_step >= max_steps or self._is_out_of_patience() else trained

    def _is_out_of_patience(self) -> bool:
        return any(
            callback.early_stopping_patience_counter
            >= (self.args.early_stopping_patience or callback.early_stopping_patience)
            for callback in self.callback_handler.callbacks
            if isinstance(callback, EarlyStoppingCallback)
        )

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        """Leaves the averaged weights in the model, unless the best checkpoint, an average too, takes their place."""
        if self._average:
            self._average.settle(self.model)
        if self.args.should_save and self.args.save_total_limit == 1 and self.state.best_model_checkpoint:
            best = Path(self.state.best_model_checkpoint)  # the Trainer too leaves only this, but removes in place
            remove_oldest(best.parent, 1, {best.name})
        return super()._finalize_training(*args, **kwargs)

    # ---- the Hub --------------------------------------------------------------------------------------------------

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Makes the repository that `hub_model_id` names, before hours of training that could not be pushed."""
        self.push_in_progress = None
        self._open_repository(self._where(None, token, private=private))

    def _open_repository(self, where: dict[str, Any]) -> None:
        if self.is_world_process_zero():
            name = self.args.hub_model_id or Path(self.args.output_dir).resolve().name
            self.hub_model_id = open_repository(**_before_a_push(where) | {"repo_id": name})

    def create_model_card(self, **said: Any) -> None:  # type: ignore[override]
        """Writes `training.json` and the card, `README.md`, into the run folder.

        Args:
            said: fields of `CardDetails` (license, language, datasets, base_model, tags, description, …), also by the
                Trainer's names for them; `model_name`, by default the repository's, or the run folder's.

        Raises:
            InputError: for a word that is unknown; for a card that cannot be written.
        """
        words, others = in_own_words(said)
        if others:
            raise InputError(f"{', '.join(others)}: not for a card, but for push_to_hub")
        if self.args.should_save:
            self._write_card(words)

    def _write_card(self, words: dict[str, Any]) -> None:
        run = Path(self.args.output_dir)
        try:
            with staged(run) as folder:
                text = json.dumps(training_facts(self, self.origin), indent=2, ensure_ascii=False, allow_nan=False)
                (folder / TRAINING).write_text(text + "\n", encoding="utf-8")
            write_card(run, self._card_details(words), run_examples=False)
        except InputError:
            raise
        except OSError as error:
            raise InputError(
                f"the card of {run} could not be written ({type(error).__name__}: {first_line(error)}): the model in "
                "it is whole; mend that, and call create_model_card() or `hf-clip publish`"
            ) from error

    def _card_details(self, words: dict[str, Any]) -> CardDetails:
        folder = Path(self.args.output_dir).resolve().name
        named: dict[str, Any] = {
            "name": words.get("model_name") or self.hub_model_id or self.args.hub_model_id or folder
        }
        return CardDetails(**named | {name: value for name, value in words.items() if name != "model_name"})

    def _adapted(self) -> str | None:
        """Of an adapter, the Hub id of the model that it was trained over, where the run knows one."""
        base = self.origin.started_from
        is_adapter = hasattr(self.accelerator.unwrap_model(self.model), "peft_config")
        return base if is_adapter and is_hub_id(base) and not Path(base).exists() else None

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        overwrite: bool | None = None,
        timeout: float | None = None,
        **said: Any,
    ) -> Any:
        """Saves the model and publishes the run folder, as `hf-clip publish` does: one commit with card and figures.

        Args:
            blocking: `False` gives a future.
            overwrite, timeout: as `push_folder` has them; default: `hub_overwrite` and `hub_timeout`.
            said: as for `create_model_card`, and fields of `Content`.

        Returns:
            A `Publication`, on the first process.

        Raises:
            InputError: a word that is unknown, a token that will not do, or a repository that is somebody's, before
                anything is saved; what the Hub refuses; the run folder is whole.
        """
        words, of_content = in_own_words(said)
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        where = self._where(commit_message, token, revision, private, overwrite, timeout)
        if self.hub_model_id is None:
            self._open_repository(where)
            where["repo_id"] = self.hub_model_id
        elif self.is_world_process_zero():
            look_first(**_before_a_push(where))
        self.save_model(_internal_call=True)
        if not self.is_world_process_zero():
            return None
        self._write_card(words)
        self._finish_current_push()
        content = Content(self._card_details(words), **{"adapter_of": self._adapted()} | of_content)
        run = Path(self.args.output_dir)
        if not blocking:
            return HfApi().run_as_future(push_run, run, content, **where)
        try:
            return push_run(run, content, **where)
        finally:
            remove_staging(run)

    def _where(
        self,
        message: str | None,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        overwrite: bool | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        return {
            "repo_id": self.hub_model_id,
            "commit_message": message or "End of training",
            "token": token or self.args.hub_token,
            "revision": revision or self.args.hub_revision,
            "private": bool(self.args.hub_private_repo if private is None else private),
            "overwrite": self.args.hub_overwrite if overwrite is None else overwrite,
            "timeout": self.args.hub_timeout if timeout is None else timeout,
        }

    @property
    def _pushes(self) -> list[Any]:
        return self.push_in_progress.jobs if self.push_in_progress else []

    def _finish_current_push(self) -> None:
        finish(self._pushes, self._is_asked_to_stop)
        remove_staging(Path(self.args.output_dir))

    def _is_asked_to_stop(self) -> bool:
        return any(
            callback.asked for callback in self.callback_handler.callbacks if isinstance(callback, StopOnInterrupt)
        )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Not yet: the checkpoint is still aside."""

    def _push_checkpoint(self, checkpoint: Path) -> None:
        """As `hub_strategy` says, in a thread; not while another push is under way, unless `hub_always_push`."""
        strategy = self.args.hub_strategy
        busy = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if strategy == HubStrategy.END or (busy and not self.args.hub_always_push):
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)

        def content() -> Content:
            facts = training_facts(self, self.origin)
            return Content(self._card_details({}), adapter_of=self._adapted(), facts=facts, run_examples=False)

        places: dict[Any, str] = {
            HubStrategy.CHECKPOINT: "last-checkpoint",
            HubStrategy.ALL_CHECKPOINTS: checkpoint.name,
        }
        job = push_checkpoint(
            Path(self.args.output_dir),
            checkpoint,
            content,
            places.get(strategy),
            **self._where(f"Training in progress, step {self.state.global_step}"),
        )
        if job is not None:
            jobs: Any = [*(self.push_in_progress.jobs if busy else []), job]
            self.push_in_progress = PushInProgress(jobs)


def _before_a_push(where: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in where.items() if name != "commit_message"}


def _whole(parameter: Tensor) -> Tensor:
    """A parameter as a plain tensor, also where FSDP2 has sharded it."""
    parameter = parameter.detach()
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter


class _ByLength(torch.utils.data.Sampler):
    """Rows of like length together, drawn from (seed, epoch) alone: the same in every process, and when resumed."""

    def __init__(self, dataset: Any, batch_size: int, seed: int):
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.dataset.epoch)
        lengths = self.dataset.caption_lengths()  # of this epoch: a mixture draws other rows in each
        return iter(get_length_grouped_indices(lengths, self.batch_size, generator=generator))


class _ClampTemperature(TrainerCallback):
    """Keeps 1/temperature at or below its cap, after the optimiser's step (arXiv:2103.00020, §2.5)."""

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        cap = model.config.logit_scale_max
        if cap is not None:
            with torch.no_grad():
                model.logit_scale.clamp_(max=cap)


class _AnnounceEpoch(TrainerCallback):
    """Tells the data set which epoch begins: captions and augmentation are drawn anew."""

    def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
        dataset = train_dataloader.dataset
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int(state.epoch or 0))


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest whole checkpoint of a run folder, or None."""
    from transformers.trainer_utils import get_last_checkpoint

    return get_last_checkpoint(str(folder)) if os.path.isdir(folder) else None
