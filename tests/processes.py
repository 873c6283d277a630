"""Starts gloo processes on this machine; what they run stands here, where they can import it."""

import copy
import dataclasses
import functools
import os
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from conftest import tiny_inputs, tiny_model, tiny_text_config, tiny_vision_config
from ready_processes import ready_context
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from toy_loss import TOY

from hf_clip import HFClipModel
from hf_clip.core.errors import InputError

# Duplicates on different ranks, whichever way seven pairs are split.
IMAGE_IDS = torch.tensor([1, 2, 3, 4, 5, 1, 7])
CAPTION_IDS = torch.tensor([1, 2, 3, 4, 2, 6, 3])
# How many of them each process has, by the number of processes.
UNEQUAL, ONE_EMPTY = {2: (4, 3), 3: (3, 1, 3)}, {2: (7, 0), 3: (4, 0, 3)}


def run(worker, world_size: int, *args) -> None:
    ready_context()
    torch.multiprocessing.start_processes(
        _start, (worker, world_size, args), nprocs=world_size, start_method="forkserver"
    )


def _start(rank: int, worker, world_size: int, args: tuple) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    worker(rank, world_size, *args)
    if dist.is_initialized():
        dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # at an orderly end gloo's threads now and then abort the process, after all that is tested


def _join(rank: int, world_size: int, folder: str) -> None:
    patience = timedelta(seconds=120)  # processes that wait for different things should not do so for half an hour
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size, timeout=patience)


@dataclass(frozen=True)
class Step:
    """One way in which several processes take a step together on seven pairs.

    Args:
        wrapping: "ddp", or "fsdp2": raw `fully_shard`.
        sizes: how many of the pairs each process has.
        tile_size, chunk_size: of the loss, and of the gradient cache; default: neither.
        own: the loss is a `compute_loss_func`, which computes the "whole" on each process, or a "share"; or "toy":
            a loss from outside.
    """

    wrapping: str
    sizes: tuple[int, ...]
    loss: str = "infonce"
    duplicates: bool = True
    tile_size: int | None = None
    chunk_size: int | None = None
    own: str | None = None

    def __str__(self) -> str:
        options = {"tiles": self.tile_size, "cache": self.chunk_size, "duplicates": self.duplicates}
        sizes = ".".join(map(str, self.sizes))
        return "-".join([self.wrapping, sizes, self.loss, *(name for name, used in options.items() if used)])

    def inputs(self, rows: slice) -> dict[str, torch.Tensor]:
        return {name: value[rows] for name, value in tiny_inputs(pairs=sum(self.sizes)).items()}

    def ids(self, rows: slice) -> dict[str, torch.Tensor]:
        return {"image_ids": IMAGE_IDS[rows], "caption_ids": CAPTION_IDS[rows]} if self.duplicates else {}


def small_model(loss: str) -> HFClipModel:
    """In float64, with as few blocks as there can be; BatchNorm in eval mode."""
    text, vision = tiny_text_config(num_hidden_layers=1), tiny_vision_config(depths=[1, 1, 1, 1])
    settings = TOY.settings() if loss == TOY.name else {"loss": loss}
    model = tiny_model(**settings, text_config=text, vision_config=vision).eval().double()
    if loss == TOY.name:
        model.use_loss(TOY)
    return model


@functools.cache
def one_process(loss: str = "infonce", duplicates: bool = True):
    """The loss of all pairs and its gradients, without tiles, chunks or other processes."""
    from hf_clip.training.distributed import global_contrastive_loss

    model = small_model(loss)
    ids = {"image_ids": IMAGE_IDS, "caption_ids": CAPTION_IDS} if duplicates else {}
    loss = global_contrastive_loss(model(**tiny_inputs(pairs=7), return_logits=False), model.get_loss(), **ids)
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def take_steps(rank: int, world_size: int, folder: str, steps: list[Step]) -> None:
    """Of each step the loss, all gradients, and whether every parameter was sharded; the models serve many steps."""
    _join(rank, world_size, folder)
    wrapped = functools.cache(lambda wrapping, loss: _WRAPPINGS[wrapping](small_model(loss)))
    results = []
    for step in steps:
        model = wrapped(step.wrapping, step.loss)
        model.zero_grad()
        rows = slice(sum(step.sizes[:rank]), sum(step.sizes[: rank + 1]))
        loss = _loss_and_gradients(model, step, rows)
        grads = {name.removeprefix("module."): _whole(p.grad) for name, p in model.named_parameters()}
        sharded = all(isinstance(p, DTensor) for p in model.parameters())
        results.append({"loss": loss, "grads": grads, "sharded": sharded})
    torch.save(results, Path(folder, f"{rank}.pt"))


def _loss_and_gradients(model: torch.nn.Module, step: Step, rows: slice) -> torch.Tensor:
    from hf_clip.training.distributed import gather_batch, global_contrastive_loss
    from hf_clip.training.gradient_cache import GradientCache
    from hf_clip.training.own_loss import give_loss, own_loss

    inputs = step.inputs(rows)
    cache = GradientCache(inputs, step.chunk_size) if step.chunk_size else None
    output = cache.embed(model) if cache else model(**inputs, return_logits=False)
    if step.own in ("whole", "share"):
        world = gather_batch(output.image_embeds, output.text_embeds, **step.ids(rows))
        loss = own_loss(functools.partial(_own, step.own, rows), output, world)
    else:
        told = small_model(step.loss)
        trained = give_loss(told, told.get_loss())
        loss = global_contrastive_loss(output, trained, **step.ids(rows), tile_size=step.tile_size)
    loss.backward()
    if cache:
        cache.backward(model)
    return loss.detach()


def _own(kind: str, rows: slice, outputs, labels=None, num_items_in_batch=None) -> torch.Tensor:
    """InfoNCE as a user would write it: of all pairs on each process, or of its own rows from `offset` on."""
    from hf_clip.models.infonce_hf_clip import contrastive_loss

    images, texts, scale = outputs.image_embeds, outputs.text_embeds, outputs.logit_scale
    if kind == "whole":
        whole = dataclasses.replace(outputs, offset=0)
        return contrastive_loss(images, texts, scale, batch=whole) / num_items_in_batch
    assert outputs.offset == rows.start
    own = slice(outputs.offset, outputs.offset + rows.stop - rows.start)
    return contrastive_loss(images[own], texts[own], scale, batch=outputs) * outputs.processes / num_items_in_batch


def shard(model: torch.nn.Module) -> torch.nn.Module:
    """FSDP2 without accelerate: each block of a tower, and what is around them."""
    from hf_clip.models.checkpointing_hf_clip import repeated_blocks

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for tower in (model.text_model, model.vision_model):
        for block in repeated_blocks(tower):
            fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()


_WRAPPINGS = {"ddp": torch.nn.parallel.DistributedDataParallel, "fsdp2": shard}


def local_loss(rank: int, world_size: int, folder: str) -> None:
    """What a plain DDP loop with `return_loss=True` is told."""
    _join(rank, world_size, folder)
    model = torch.nn.parallel.DistributedDataParallel(tiny_model())
    try:
        model(**tiny_inputs(), return_loss=True)
    except ValueError as error:
        Path(folder, f"{rank}.txt").write_text(str(error))


def train_and_evaluate(rank: int, world_size: int, folder: str, data: str, steps: int, toy: bool = False) -> None:
    """The Trainer over `world_size` processes on a global batch of 6, the image tower's BatchNorm in eval mode; with a
    loss from outside in float64."""
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
        **({"model": tiny_model().double(), "trainer": {"loss": TOY}} if toy else {}),
    )
    trainer.train()
    metrics = trainer.evaluate()
    if rank == 0:
        weights = copy.deepcopy(trainer.accelerator.unwrap_model(trainer.model).state_dict())
        torch.save({"weights": weights, "metrics": metrics}, Path(folder, f"trained-{world_size}.pt"))


# Captions and classes of the same pictures, and features before the projection.
EVALUATION = {
    "per_device_train_batch_size": 12,
    "eval_tasks": ["retrieval", "zero-shot", "knn"],
    "eval_features": "pooled",
    "eval_neighbours": 3,
    "label_column": "label",
}


def evaluate(rank: int, world_size: int, folder: str, data: str) -> None:
    """What each process says of pictures that they have looked at together."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    from training_runs import make_trainer

    _join(rank, world_size, folder)
    settings = {"per_device_train_batch_size": 12 // world_size, "per_device_eval_batch_size": 2}
    settings |= {"accelerator_config": {"even_batches": False}, "train_sampling_strategy": "group_by_length"}
    trainer = make_trainer(Path(folder, "run"), Path(data), **(EVALUATION | settings))
    predicted = trainer.predict(wrapped(trainer.eval_dataset))
    own = torch.utils.data.Subset(trainer.train_dataset, [*range(8), *range(rank, rank + 4)])
    refused = [_refusal(trainer.predict, own)]
    trainer.train_dataset = own
    refused.append(_refusal(trainer.train))
    torch.save((trainer.evaluate(), tuple(predicted), refused), Path(folder, f"{rank}.pt"))


def _refusal(call, *given) -> str:
    try:
        call(*given)
    except InputError as error:
        return str(error)
    return ""


def wrapped(dataset: torch.utils.data.Dataset) -> torch.utils.data.Dataset:
    """Seven rows, one of them three times: a sampler's padding is none of them."""
    first = torch.utils.data.Subset(dataset, [0, 0, 3, 4])
    return torch.utils.data.ConcatDataset([first, torch.utils.data.Subset(dataset, [7, 0, 2])])


def train_sharded(rank: int, world_size: int, folder: str, data: str) -> None:
    """The Trainer with accelerate's FSDP2 for three steps, and once more from the checkpoint after the second."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    from training_runs import make_trainer

    _join(rank, world_size, folder)
    _let_accelerate_shard_on_cpus()
    settings = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1, "freeze_vision": True, "fsdp": True}
    settings |= {"per_device_train_batch_size": 6 // world_size, "gradient_cache_chunk_size": 2}
    settings |= {"per_device_eval_batch_size": 1}
    trainer = make_trainer(Path(folder, "run"), Path(data), **settings)
    trainer.train()
    trainer.save_model()
    sharded = all(isinstance(parameter, DTensor) for parameter in trainer.model.parameters())
    resumed = make_trainer(Path(folder, "resumed"), Path(data), **settings)
    resumed.train(resume_from_checkpoint=str(Path(folder, "run", "checkpoint-2")))
    resumed.save_model()
    Path(data, "2.png").write_bytes(b"")  # a batch without a picture for one process
    metrics = trainer.evaluate()
    torch.save({"sharded": sharded, "metrics": metrics}, Path(folder, f"{rank}.pt"))


def _let_accelerate_shard_on_cpus() -> None:
    """It keeps FSDP to GPUs, and we refuse it elsewhere for that; all that follows is the same code on gloo."""
    from accelerate.state import AcceleratorState, DistributedType, PartialState

    from hf_clip.training import base

    original = AcceleratorState.__init__

    def init(self, *args, fsdp_plugin=None, **kwargs) -> None:
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = init
    base.check_processes = lambda args: None


def train_with_other_settings(rank: int, world_size: int, folder: str, data: str, others: list[dict]) -> None:
    """Each process with settings of its own; what the comparison says of them."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    from training_runs import make_trainer

    from hf_clip.training.processes import check_same_settings

    _join(rank, world_size, folder)
    said = []
    for own in others:
        own = own if rank else {}
        model = tiny_model(loss=own.pop("loss", "infonce"))
        trainer = make_trainer(Path(folder, f"run-{rank}"), Path(data), model=model, **own)
        said.append(_refusal(check_same_settings, trainer.args, trainer.model, {}))
    torch.save(said, Path(folder, f"{rank}.pt"))


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


def train_heads(rank: int, world_size: int, folder: str, data: str, segment_size: int) -> None:
    """Both towers frozen, their features kept in `folder/cache`; what each process ran its towers on."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    from training_runs import cached_trainer

    if world_size > 1:
        _join(rank, world_size, folder)
    trainer, seen = cached_trainer(
        Path(folder),
        Path(data),
        "run",
        segment_size,
        per_device_train_batch_size=4 // world_size,
        num_train_epochs=2,
        learning_rate=1e-2,
    )
    trainer.train()
    weights = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    torch.save({"weights": weights, "seen": dict(seen)}, Path(folder, f"{rank}.pt"))


def fill_a_cache_slowly(rank: int, world_size: int, folder: str, data: str, seconds: float) -> None:
    """What takes longer than a collective may: the first process's scan, then its share; at last its scan fails."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    from training_runs import cached_trainer

    from hf_clip.training import feature_cache, frozen_towers

    _join(rank, world_size, folder)
    trainer, seen = cached_trainer(Path(folder), Path(data), "run", freeze_vision=False)
    (callback,) = (
        each for each in trainer.callback_handler.callbacks if isinstance(each, feature_cache.UseFrozenFeatures)
    )

    def slowly(function):
        def call(*args):
            time.sleep(1.5 * seconds if rank == 0 else 0)
            return function(*args)

        return call

    def fail(*args):
        raise InputError("row 3 is no text\nand more")

    frozen_towers.TextTower.items = slowly(frozen_towers.TextTower.items)
    feature_cache._fill = slowly(feature_cache._fill)
    dist.barrier()
    set_timeout = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
    set_timeout(timedelta(seconds=seconds))
    callback.on_train_begin(trainer.args, None, None)
    found = {"ids": trainer.train_dataset.text_features.ids.tolist(), "seen": dict(seen)}
    frozen_towers.TextTower.items = fail
    try:
        callback.on_train_begin(trainer.args, None, None)
    except InputError as error:
        found["error"] = str(error)
    torch.save(found, Path(folder, f"{rank}.pt"))


def train_with_one_loss_not_finite(rank: int, world_size: int, folder: str, data: str) -> None:
    """Of toys: an evaluation without an image, one that gathers predictions, a training that process 1 ends."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
    from toy_images import toy_trainer

    from hf_clip.training.base import BaseTrainer

    class Spoiled(BaseTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            return loss * (float("nan") if model.training and rank == 1 and self.state.global_step == 1 else 1)

    _join(rank, world_size, folder)
    trainer = toy_trainer(Path(folder, "run"), Path(data), Spoiled, per_device_eval_batch_size=1)
    said: list[object] = [trainer.evaluate()["eval_loss"]]
    for call in (lambda: trainer.predict(trainer.eval_dataset), trainer.train):
        try:
            said.append(call())
        except InputError as error:
            said.append(str(error))
    torch.save(said, Path(folder, f"{rank}.pt"))
