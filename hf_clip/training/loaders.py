"""Loaders of training and evaluation sets: in which order their rows come, and in which batches."""

from collections.abc import Callable, Iterator, Sized
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler
from transformers import TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices
from transformers.trainer_utils import seed_worker
from transformers.utils import logging

from ..core.errors import InputError

logger = logging.get_logger(__name__)


def make_loader(args: TrainingArguments, dataset: Any, collator: Callable, **batches: Any) -> DataLoader:
    """With the workers of the arguments, and without accelerate, which would deal the rows out itself."""
    workers = args.dataloader_num_workers
    return DataLoader(
        dataset,
        collate_fn=collator,
        num_workers=workers,
        pin_memory=args.dataloader_pin_memory,
        prefetch_factor=args.dataloader_prefetch_factor if workers else None,
        multiprocessing_context=args.dataloader_multiprocessing_context if workers else None,
        **batches,
    )


def training_loader(
    args: TrainingArguments, rows: Any, collator: Callable, size: int, sampler: Sampler | None = None, **more: Any
) -> DataLoader:
    """
    Args:
        size: of a process's batch.
    """
    if not isinstance(rows, IterableDataset):
        seed = partial(seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index)
        drops = args.dataloader_drop_last and not (isinstance(rows, Sized) and len(rows) < size * args.world_size)
        more |= {"sampler": sampler, "drop_last": drops, "worker_init_fn": seed}
    return make_loader(
        args,
        rows,
        collator,
        batch_size=size,
        persistent_workers=args.dataloader_persistent_workers,
        in_order=args.dataloader_in_order,
        **more,
    )


def seed_of_workers(args: TrainingArguments) -> torch.Generator:
    """Of their own: a resumed run starts some that in the whole one are running, which must not move what dropout
    draws from."""
    return torch.Generator().manual_seed(args.seed)


def check_batches(args: TrainingArguments, dataset: Any, size: int) -> None:
    """
    Args:
        size: of a process's batch.

    Raises:
        InputError: for settings that tear the batch of several processes apart.
    """
    loading: Any = args.accelerator_config
    if args.world_size > 1 and (loading.split_batches or loading.dispatch_batches or not loading.even_batches):
        raise InputError(
            "split_batches, dispatch_batches and even_batches=False of accelerator_config would tear the batch of "
            "several processes apart: leave them out"
        )
    if not isinstance(dataset, Sized):
        return
    rows, batch = len(dataset), size * args.world_size
    if rows < batch and args.dataloader_drop_last:
        logger.warning_once(f"{rows} training rows make no whole batch of {batch}: each epoch is one of {rows}")


class ByLength(Sampler):
    """Rows of like length together, drawn from (seed, epoch) alone: the same in every process, and when resumed."""

    def __init__(self, dataset: Any, args: TrainingArguments):
        self.dataset = dataset
        self.batch_size = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
        self.seed = args.seed if args.data_seed is None else args.data_seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.dataset.epoch)
        lengths = self.dataset.caption_lengths()  # of this epoch: a mixture draws other rows in each
        return iter(get_length_grouped_indices(lengths, self.batch_size, generator=generator))
