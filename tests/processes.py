"""Starts gloo processes on this machine; what they run stands here, where they can import it."""

import copy
import os
from pathlib import Path

import torch
import torch.distributed as dist
from conftest import tiny_inputs, tiny_model

# Duplicates on different ranks, whichever way seven pairs are split.
IMAGE_IDS = torch.tensor([1, 2, 3, 4, 5, 1, 7])
CAPTION_IDS = torch.tensor([1, 2, 3, 4, 2, 6, 3])


def run(worker, world_size: int, *args) -> None:
    torch.multiprocessing.spawn(_start, (worker, world_size, args), nprocs=world_size)


def _start(rank: int, worker, world_size: int, args: tuple) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    worker(rank, world_size, *args)
    if dist.is_initialized():
        dist.destroy_process_group()


def _join(rank: int, world_size: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)


def one_step(rank: int, world_size: int, folder: str, sizes: list[int], duplicates: bool, loss: str) -> None:
    """A loss and its gradients under plain DDP, with this rank's part of the batch."""
    from hf_clip.training.distributed import global_contrastive_loss

    _join(rank, world_size, folder)
    model = torch.nn.parallel.DistributedDataParallel(
        tiny_model(loss=loss).eval().double(), find_unused_parameters=duplicates
    )
    rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    inputs = {name: value[rows] for name, value in tiny_inputs(pairs=7).items()}
    ids = {"image_ids": IMAGE_IDS[rows], "caption_ids": CAPTION_IDS[rows]} if duplicates else {}
    loss = global_contrastive_loss(model(**inputs, return_logits=False), **ids)
    loss.backward()
    grads = {name: parameter.grad for name, parameter in model.module.named_parameters()}
    torch.save({"loss": loss.detach(), "grads": grads}, Path(folder, f"{rank}.pt"))


def local_loss(rank: int, world_size: int, folder: str) -> None:
    """What a plain DDP loop with `return_loss=True` is told."""
    _join(rank, world_size, folder)
    model = torch.nn.parallel.DistributedDataParallel(tiny_model())
    try:
        model(**tiny_inputs(), return_loss=True)
    except ValueError as error:
        Path(folder, f"{rank}.txt").write_text(str(error))


def train_and_evaluate(rank: int, world_size: int, folder: str, data: str, steps: int) -> None:
    """The Trainer over `world_size` processes on a global batch of 6, the image tower's BatchNorm in eval mode."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    from training_runs import make_trainer

    if world_size > 1:
        _join(rank, world_size, folder)
    trainer = make_trainer(
        Path(folder, f"run-{world_size}"),
        Path(data),
        per_device_train_batch_size=6 // world_size,
        per_device_eval_batch_size=2,
        max_steps=steps,
        freeze_vision=True,
        save_strategy="steps",
        save_steps=steps,
        use_cpu=True,
    )
    trainer.train()
    metrics = trainer.evaluate()
    if rank == 0:
        weights = copy.deepcopy(trainer.accelerator.unwrap_model(trainer.model).state_dict())
        torch.save({"weights": weights, "metrics": metrics}, Path(folder, f"trained-{world_size}.pt"))


def train_with_moving_statistics(rank: int, world_size: int, folder: str, data: str) -> None:
    """BatchNorm in training mode, an average of the weights, captions grouped by length; generators that differ."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    from training_runs import make_trainer

    _join(rank, world_size, folder)
    trainer = make_trainer(
        Path(folder, "run"),
        Path(data),
        per_device_train_batch_size=3,
        per_device_eval_batch_size=4,
        num_train_epochs=3,
        learning_rate=0.01,
        ema_decay=0.9,
        save_strategy="steps",
        save_steps=2,
        train_sampling_strategy="group_by_length",
        use_cpu=True,
    )
    trainer.train()
    metrics = trainer.evaluate()
    trainer.save_model()
    torch.manual_seed(rank)
    rows = torch.cat([batch["rows"] for batch in trainer.get_train_dataloader()]).tolist()
    torch.save({"metrics": metrics, "rows": rows}, Path(folder, f"{rank}.pt"))
