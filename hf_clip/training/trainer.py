"""The `transformers` Trainer for dual encoders: global-batch loss, retrieval in `evaluate()`, whole checkpoints."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm.auto import tqdm
from transformers import EarlyStoppingCallback, PreTrainedModel, Trainer, TrainerCallback
from transformers.trainer import PREFIX_CHECKPOINT_DIR, TRAINER_STATE_NAME, rotate_checkpoints
from transformers.trainer_pt_utils import get_length_grouped_indices
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from ..data.images import broken_picture, skipped_line
from ..data.streaming import StreamedPairs
from ..embedding import Embeddings, embed_batch, join_batches
from ..errors import InputError, first_line
from ..evaluation.retrieval import evaluate_retrieval
from ..modeling_hf_clip import HFClipModel, HFClipOutput
from .arguments import HFClipTrainingArguments
from .averaging import LAST_WEIGHTS, WeightAverage
from .checkpoints import STAGING, discard, replace, staged, writing
from .distributed import (
    GlobalBatch,
    gather_batch,
    gather_objects,
    in_batch_accuracy,
    loss_of_global_batch,
    share_statistics,
)
from .frozen_text import FrozenTextMemory
from .parameter_groups import parameter_groups

logger = logging.get_logger(__name__)


class HFClipTrainer(Trainer):
    """Trains an `HFClipModel` on items of `TrainingPairs`, batched by `HFClipCollator`.

    Every `Trainer` argument works as it does there. Beyond it: the loss is that of the global batch over all
    processes; a frozen tower stays in evaluation mode; the temperature is clamped after each step; `evaluate()`
    gives retrieval recalls of a `CaptionedImages`; a checkpoint is never half written.

    `skipped_images` holds the pictures that could not be read so far: row → (name, reason).
    """

    args: HFClipTrainingArguments
    model: HFClipModel

    def __init__(self, model: HFClipModel, args: HFClipTrainingArguments, **kwargs: Any):
        if args.n_gpu > 1:
            raise InputError(
                f"one process sees {args.n_gpu} GPUs: start one process a GPU with `accelerate launch` or `torchrun`, "
                "or set CUDA_VISIBLE_DEVICES to one of them"
            )
        self._frozen = _freeze(model, args)
        if args.channels_last:
            _store_channels_last(model)
        super().__init__(model, args, **kwargs)
        self.skipped_images: dict[int, tuple[str, str]] = {}
        self._text_memory = FrozenTextMemory(model) if args.remember_frozen_text else None
        self._meters: dict[str, Tensor] = {}
        self._average = WeightAverage(args.ema_decay) if args.ema_decay else None
        self.add_callback(_ClampTemperature())
        self.add_callback(_AnnounceEpoch())
        if self._average:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise InputError("ema_decay cannot follow weights that FSDP or DeepSpeed has sharded: leave it out")
            self.add_callback(self._average)
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStoppingCallback(args.early_stopping_patience))
        if args.gradient_accumulation_steps > 1:
            logger.warning(
                f"gradient_accumulation_steps={args.gradient_accumulation_steps} averages gradients of separate "
                f"batches: each pair still has the negatives of one batch only. A larger batch needs a larger "
                f"per_device_train_batch_size or more processes."
            )

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
        del inputs["rows"]
        if (inputs.pop("caption_counts") != 1).any():
            raise InputError("a training item needs one caption: train on TrainingPairs, not on CaptionedImages")
        ids = {name: inputs.pop(name) for name in ("image_ids", "caption_ids")}
        captions_cut = inputs.pop("captions_cut")
        if self._text_memory:
            tokens = {name: inputs.pop(name) for name in list(inputs) if name != "pixel_values"}
            inputs["pooled_text"] = self._text_memory(ids["caption_ids"], tokens)
        output = model(**inputs, return_logits=False)
        ids = ids if self.args.mask_duplicates else {}
        world = gather_batch(output.image_embeds, output.text_embeds, **ids)
        loss = loss_of_global_batch(output, world)
        pairs = len(output.text_embeds)
        self._meter("captions_cut", captions_cut.sum(), pairs)
        self._meter("in_batch_accuracy", in_batch_accuracy(world, pairs), pairs)
        return (loss, output) if return_outputs else loss

    def create_optimizer(self, model: PreTrainedModel | None = None) -> torch.optim.Optimizer:
        """Any optimiser that `TrainingArguments` names, over `parameter_groups`."""
        if self.optimizer is None and self.optimizer_cls_and_kwargs is None:
            opt_model = self.model if model is None else model
            optimizer_class, kwargs = self.get_optimizer_cls_and_kwargs(self.args, opt_model)
            self.optimizer_cls_and_kwargs = (
                optimizer_class,
                {"params": parameter_groups(opt_model, self.args)} | kwargs,
            )
            try:
                return super().create_optimizer(model)
            finally:
                self.optimizer_cls_and_kwargs = None
        return super().create_optimizer(model)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the temperature, and the means since the last log of what each step measured on all processes."""
        if "loss" in logs:
            logs["temperature"] = (-_whole(self.accelerator.unwrap_model(self.model).logit_scale)).exp().item()
            for name, meter in self._meters.items():
                total, count = self.accelerator.reduce(meter).tolist()
                logs[name] = total / max(count, 1)
            self._meters.clear()
        super().log(logs, start_time)

    def _meter(self, name: str, total: Tensor, count: int) -> None:
        step = torch.stack([total.detach().float(), torch.tensor(float(count), device=total.device)])
        self._meters[name] = self._meters[name] + step if name in self._meters else step

    def _report_skipped(self, row: int, name: str, reason: str) -> None:
        self._stop_if_strict(row, name, reason)
        if row not in self.skipped_images:
            self.skipped_images[row] = (name, reason)
            logger.warning(f"skipped {skipped_line(row, name, reason)}")

    def _stop_if_strict(self, row: int, name: str, reason: str) -> None:
        if self.args.strict:
            raise broken_picture(row, name, reason)

    # ---- data -----------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """A stream is dealt out to the processes already; accelerate would have each of them read all of it."""
        if not isinstance(self.train_dataset, StreamedPairs):
            return super().get_train_dataloader()
        workers = self.args.dataloader_num_workers
        return torch.utils.data.DataLoader(
            self.train_dataset,
            batch_size=self.args.train_batch_size,
            collate_fn=self.data_collator,
            num_workers=workers,
            pin_memory=self.args.dataloader_pin_memory,
            prefetch_factor=self.args.dataloader_prefetch_factor if workers else None,
            drop_last=self.args.dataloader_drop_last,
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        """Knows the captions' lengths for `train_sampling_strategy="group_by_length"`."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length" or not hasattr(dataset, "caption_lengths"):
            return super()._get_train_sampler(train_dataset)
        batch = self.args.train_batch_size * self.args.world_size * self.args.gradient_accumulation_steps
        return _ByLength(dataset, batch, self.args.seed)

    # ---- evaluation -----------------------------------------------------------------------------------------------

    def get_eval_dataloader(self, eval_dataset: Any = None) -> torch.utils.data.DataLoader:
        """Every row of an evaluation set counts: `dataloader_drop_last` is for training alone."""
        drop_last, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.dataloader_drop_last = drop_last

    def evaluation_loop(
        self,
        dataloader: torch.utils.data.DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Embeds the data set over all processes, once a row, and scores retrieval both ways."""
        with self._averaged_weights():
            embeddings = self.embed(dataloader, description)
            metrics = self.score(embeddings, metric_key_prefix)
        return EvalLoopOutput(
            predictions=None, label_ids=None, metrics=metrics, num_samples=len(embeddings.image_embeds)
        )

    def score(self, embeddings: Embeddings, prefix: str = "eval") -> dict[str, float]:
        """What `evaluate()` says of a set that is already embedded."""
        metrics = evaluate_retrieval(embeddings) | {"loss": self._loss_of(embeddings)}
        return {f"{prefix}_{name}": value for name, value in metrics.items()}

    def embed(self, dataloader: torch.utils.data.DataLoader, description: str = "embedding") -> Embeddings:
        """All rows of an evaluation loader, from all processes, each once."""
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        if not self.is_in_train and model.device != self.args.device:
            model.to(self.args.device)
        share_statistics(model)
        model.eval()
        batches, skipped = [], []
        for batch in tqdm(dataloader, desc=description, disable=self.args.disable_tqdm, leave=False):
            for entry in batch.pop("skipped"):
                self._stop_if_strict(*entry)
                skipped.append(entry)
            if len(batch["rows"]):
                with self.autocast_smart_context_manager():
                    batches.append(embed_batch(model, self._prepare_inputs(batch)))
        gathered = gather_objects((batches, skipped))
        return join_batches(
            (batch for part, _ in gathered for batch in part), [entry for _, part in gathered for entry in part]
        )

    def _loss_of(self, embeddings: Embeddings) -> float:
        """The mean loss over batches of the training size, each picture with its first caption, in row order."""
        size = self.args.train_batch_size * self.args.world_size
        first = torch.searchsorted(embeddings.text_to_image, torch.arange(len(embeddings.image_embeds)))
        model = self.accelerator.unwrap_model(self.model)
        scale, bias = (None if p is None else _whole(p).cpu() for p in (model.logit_scale, model.logit_bias))
        total = 0.0
        for images in torch.arange(len(embeddings.image_embeds)).split(size):
            batch = GlobalBatch(
                embeddings.image_embeds[images],
                embeddings.text_embeds[first[images]],
                embeddings.image_ids[images] if self.args.mask_duplicates else None,
                embeddings.caption_ids[first[images]] if self.args.mask_duplicates else None,
            )
            output = HFClipOutput(
                image_embeds=batch.image_embeds, text_embeds=batch.text_embeds, logit_scale=scale, logit_bias=bias
            )
            total += loss_of_global_batch(output, batch).item() * len(images)
        return total / len(embeddings.image_embeds)

    def _averaged_weights(self) -> contextlib.AbstractContextManager:
        return self._average.in_place(self.model) if self._average else contextlib.nullcontext()

    # ---- saving ---------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The Trainer's checkpoint, written aside and renamed when every process has finished its part."""
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
            best = run / f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}"
            if self.state.best_global_step and (best.exists() or best.name == name):
                self.state.best_model_checkpoint = str(best)
            if self.args.should_save:
                self.state.save_to_json(str(aside / TRAINER_STATE_NAME))
                replace(aside, run / name)
        if self.args.should_save:
            discard(aside)
            rotate_checkpoints(
                output_dir=str(run),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )
        self.accelerator.wait_for_everyone()

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

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        """Leaves the averaged weights in the model, unless the best checkpoint, an average too, takes their place."""
        if self._average:
            self._average.settle(self.model)
        return super()._finalize_training(*args, **kwargs)


def _freeze(model: HFClipModel, args: HFClipTrainingArguments) -> list[nn.Module]:
    """Freezes what was asked for, and gives all that must stay in evaluation mode: towers of which nothing trains,
    and BatchNorm whose weights do not (below an adapter, say): moved statistics would be lost with the adapter."""
    if args.freeze_text:
        model.text_model.requires_grad_(False)
    if args.freeze_vision:
        model.vision_model.requires_grad_(False)
    towers = [model.text_model, model.vision_model]
    norms = [module for tower in towers for module in tower.modules() if isinstance(module, _BatchNorm)]
    return [module for module in towers + norms if not any(p.requires_grad for p in module.parameters())]


def _store_channels_last(model: HFClipModel) -> None:
    """Only convolutional towers: a transformer's one patch embedding gains nothing."""
    if sum(isinstance(module, nn.Conv2d) for module in model.vision_model.modules()) > 1:
        model.vision_model.to(memory_format=torch.channels_last)  # type: ignore[call-arg]


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
