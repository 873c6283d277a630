"""The trainer of dual encoders: the loss of the global batch, gradient cache, rates by part, the temperature."""

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from ..core.errors import InputError
from ..data.collator import HFClipCollator
from ..data.columns import ColumnSettings
from ..embeddings.encode import is_convolutional
from ..models.checkpointing_hf_clip import repeated_blocks
from ..models.loss_hf_clip import Loss, LossFunction
from ..models.modeling_hf_clip import HFClipModel, HFClipOutput
from ..publishing.clip.training_record import PairTrainingRecord
from .arguments import HFClipTrainingArguments
from .data_sets import DataOpener, take_columns
from .distributed import GatheredBatch, gather_batch, in_batch_accuracy, loss_of_global_batch
from .evaluation import EmbeddingTrainer
from .evaluation_checks import check_evaluation
from .feature_cache import UseFrozenFeatures
from .gradient_cache import GradientCache
from .inherited import refuse_arguments
from .own_loss import check_compute_loss_func, check_loss_of_checkpoint, give_loss, loss_to_train, own_loss
from .pair_facts import pair_facts
from .parameter_groups import parameter_groups
from .parts import (
    batches_of,
    check_model_and_processor,
    check_parts,
    check_steps,
    enough_for_batch_norm,
    freeze,
    is_own_collator,
    learns_statistics,
)
from .processes import wants_fsdp
from .trainer_parts import TrainerParts

logger = logging.get_logger(__name__)


class HFClipTrainer(EmbeddingTrainer):
    """Trains an `HFClipModel` on images with captions.

    ```python
    model, processor = hf_clip.create_model_and_processor("microsoft/resnet-50", "google-bert/bert-base-uncased")
    trainer = HFClipTrainer(model, HFClipTrainingArguments("my_clip", num_train_epochs=5),
                            train_dataset="pictures/train", eval_dataset="pictures/test", processing_class=processor)
    trainer.train()
    trainer.save_model()
    hf_clip.evaluate("my_clip", "pictures/test")
    hf_clip.publish("my_clip", "user/my-clip")
    ```

    Every `Trainer` argument works as it does there, and all of `BaseTrainer`. Beyond it: the loss is that of the
    global batch over all processes; a frozen tower stays in evaluation mode; the temperature is clamped after each
    step; `evaluate()` gives retrieval recalls of a `CaptionedImages`, and `predict()` its embeddings too.

    Args:
        train_dataset, eval_dataset: what `open_source` takes (a folder, a file, a Hub id, a `datasets.Dataset`, …), a
            source that it has opened, or a data set: `TrainingPairs` and its like, or one of your own with a
            `data_collator`, which gives `pixel_values` and `input_ids`. Of several splits, training reads train, and
            evaluation test, or else validation; `eval_dataset` may be several by name. What is opened here is trained
            on with the default `Augmentation` and evaluated without.
        image_column, caption_column, label_column, class_names: of data that are opened here, as `open_source` has
            them.
        data_collator: default: that of `processing_class`. One of your own gets the rows of a `datasets.Dataset` as
            they are.
        processing_class: the model's `HFClipProcessor`.
        loss: what is trained on, in place of the loss that the model was made for: a `Loss`, the name of one of
            hf_clip's, or a function as [`Loss`] describes it, with which temperature, bias and probabilities stay the
            model's. See `HFClipModel.use_loss` for what becomes of a model that was made for another one.
        origin: what the towers and the pictures are, for the model card.

    Raises:
        InputError: parts that do not fit together, data that will not do; a loss that is none, with
            `compute_loss_func` or with DeepSpeed; a model of a loss that is not here.
    """

    arguments = HFClipTrainingArguments
    args: HFClipTrainingArguments
    model: HFClipModel

    # Losses are means over a batch: accumulated steps are averaged, those of a `compute_loss_func` too.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: HFClipModel | None = None,
        args: HFClipTrainingArguments | None = None,
        *others: Any,
        loss: Loss | LossFunction | str | None = None,
        **parts: Unpack[TrainerParts],
    ):
        self._given_loss = loss
        self._loss: LossFunction  # of the model that is trained
        self._cache: GradientCache | None = None  # of the step that is being taken
        self._finite: dict[str, Tensor] = {}  # of its embeddings of all processes, by tower
        given: dict[str, Any] = dict(parts)
        self._columns: ColumnSettings = take_columns(given)
        super().__init__(model, args, *others, **given)
        if self.args.gradient_accumulation_steps > 1:
            logger.warning(
                f"gradient_accumulation_steps={self.args.gradient_accumulation_steps} averages gradients of separate "
                f"batches: each pair still has the negatives of one batch only. A larger batch needs a larger "
                f"per_device_train_batch_size (gradient_cache_chunk_size makes it fit) or more processes."
            )

    # ---- what the base asks ---------------------------------------------------------------------------------------

    def parts_for(self, model: Any, given: dict[str, Any]) -> dict[str, Any]:
        """Of a dual encoder: data sets in place of what has to be opened, and the collator of the processor."""
        refuse_arguments(given)
        collator = given.get("data_collator")
        if given.get("processing_class") is None and isinstance(collator, HFClipCollator):
            given = given | {"processing_class": collator.processor}
        check_model_and_processor(model, given)
        check_compute_loss_func(model, given, self._given_loss, given["args"].loss_tile_size)
        self.opener = DataOpener(
            given["args"], given.get("processing_class"), self._columns, is_own_collator(collator)
        )
        given = given | self.opener.data_sets(given)
        check_parts(model, given)
        return given | {"data_collator": batches_of(collator, model, given.get("processing_class"))}

    def make_ready(self, model: HFClipModel) -> list[nn.Module]:
        """Freezes the towers that are to be, and stores convolutions channels-last; tells the model its loss."""
        args, loss = self.args, None
        if self.compute_loss_func is None:
            tiles, deepspeed = args.loss_tile_size, self.is_deepspeed_enabled
            loss = loss_to_train(model, self._given_loss, tiles, args.device, deepspeed)
        frozen = freeze(model, args)
        if not wants_fsdp(args) and args.channels_last and is_convolutional(model):  # FSDP shards no layout
            model.vision_model.to(memory_format=torch.channels_last)  # type: ignore[call-arg]
        self._learns_statistics = any(map(learns_statistics, model.modules()))
        check_steps(args, model, self.is_fsdp_enabled, self.is_deepspeed_enabled)
        if loss is not None:  # last of all: a model that is refused is as it was
            self._loss = give_loss(model, loss)
        self._cache = None
        return frozen

    def blocks_of(self, model: HFClipModel) -> list[str]:
        """The repeated blocks of both towers."""
        blocks = repeated_blocks(model.text_model) + repeated_blocks(model.vision_model)
        return [type(block).__name__ for block in blocks]

    def own_callbacks(self) -> list[TrainerCallback]:
        """The temperature's clamp, and the feature cache."""
        cached = [UseFrozenFeatures(self)] if self.args.cache_frozen_features else []
        return [_ClampTemperature(), *cached]

    def check_run(self) -> None:
        """Refuses what the first evaluation would stumble over, and a checkpoint of another loss."""
        sets = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"": self.eval_dataset}
        check_evaluation(self.args, sets, self.tasks_of, self.compute_metrics is not None)
        if self.resumes_from:
            check_loss_of_checkpoint(self.resumes_from, self.model.config)

    def training_facts(self) -> PairTrainingRecord:
        """And of the towers."""
        return pair_facts(self, self.origin)

    def train(
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, *args: Any, **kwargs: Any
    ) -> TrainOutput:
        """As `BaseTrainer` does it."""
        refuse_arguments({"train.ignore_keys_for_eval": next(iter(args), kwargs.get("ignore_keys_for_eval"))})
        return super().train(resume_from_checkpoint, trial, *args, **kwargs)

    # ---- the step -------------------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of the global batch; see `training.distributed`. This process's part of it may be empty."""
        inputs = {name: value for name, value in inputs.items() if name not in ("rows", "skipped")}
        if (inputs.pop("caption_counts") != 1).any():
            raise InputError("a training item needs one caption: train on TrainingPairs, not on CaptionedImages")
        ids = {name: inputs.pop(name) for name in ("image_ids", "caption_ids")}
        captions_cut = inputs.pop("captions_cut", None)  # a collator of one's own need not count them
        with enough_for_batch_norm():
            output = self._output(model, inputs)
        ids = ids if self.args.mask_duplicates else {}
        world = gather_batch(output.image_embeds, output.text_embeds, **ids)
        loss = self.loss_of_batch(output, world)
        self._note_what_is_finite(world)
        pairs = len(output.text_embeds)
        if captions_cut is not None:
            self.meter("captions_cut", captions_cut.sum(), pairs)
        # Of a thousand pictures the share is known well enough; of all it would cost a fourth of the loss.
        looked_at = min(pairs, 1024)
        self.meter("in_batch_accuracy", in_batch_accuracy(world, looked_at), looked_at)
        return (loss, output) if return_outputs else loss

    def _output(self, model: nn.Module, inputs: dict[str, Any]) -> HFClipOutput:
        if not self.args.gradient_cache_chunk_size:
            return model(**self.normalized(inputs), return_logits=False)
        self._cache = GradientCache(
            inputs,
            self.args.gradient_cache_chunk_size,
            self.args.gradient_cache_text_chunk_size,
            prepare=self.normalized,
            context=self.compute_loss_context_manager,
            least_images=2 if self._learns_statistics else 1,
        )
        return self._cache.embed(model)

    def loss_of_batch(self, output: HFClipOutput, world: GatheredBatch) -> Tensor:
        """Of the pairs of all processes: the model's, or `compute_loss_func`."""
        if self.compute_loss_func is not None:
            return own_loss(self.compute_loss_func, output, world)
        return loss_of_global_batch(output, self._loss, world, self.args.loss_tile_size)

    @property
    def loss_label(self) -> str:
        """A few words for what is trained on."""
        return self.model.get_loss().label if self.compute_loss_func is None else "compute_loss_func"

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """With a gradient cache the Trainer's step comes as far as the embeddings, and goes on from there."""
        loss = super().training_step(model, inputs, *args, **kwargs)
        if self._cache:
            self._cache.backward(model)
            self._cache = None
        return loss

    @torch.no_grad()
    def _note_what_is_finite(self, world: GatheredBatch) -> None:
        """Left on the device: only a loss that is not finite has it looked at."""
        towers = {"image": world.image_embeds, "text": world.text_embeds}
        self._finite = {tower: embeds.isfinite().all() for tower, embeds in towers.items()}

    def what_is_not_finite(self) -> str:
        """The towers whose embeddings are not."""
        broken = [f"the {tower} tower's embeddings" for tower, finite in self._finite.items() if not finite]
        return " and ".join(broken) or "the temperature or the loss"

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
        """And the temperature."""
        if "loss" in logs:
            logs["temperature"] = (-self.temperature()[0]).exp().item()
        super().log(logs, start_time)


class _ClampTemperature(TrainerCallback):
    """Keeps 1/temperature at or below its cap, after the optimiser's step (arXiv:2103.00020, §2.5)."""

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        cap = model.config.logit_scale_max
        if cap is not None:
            with torch.no_grad():
                model.logit_scale.clamp_(max=cap)
