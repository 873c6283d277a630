"""Which parameter learns at which rate, and which decays."""

from typing import Any

from torch import nn

from ..core.errors import InputError
from ..models.checkpointing_hf_clip import repeated_blocks
from .arguments import HFClipTrainingArguments


def parameter_groups(
    model: nn.Module, args: HFClipTrainingArguments, learning_rate: float | None = None
) -> list[dict[str, Any]]:
    """Trainable parameters by learning rate and decay: matrices and kernels decay, vectors never do.

    With `layer_decay`, a tower's rate falls by that factor from each block to the one below it, the embeddings being
    lowest (BEiT, arXiv:2106.08254, appendix; as in ELECTRA).

    Args:
        learning_rate: in place of that of the arguments.
    """
    learning_rate = args.learning_rate if learning_rate is None else learning_rate
    rates = {
        "text_model": args.text_learning_rate,
        "vision_model": args.vision_learning_rate,
        "heads": args.head_learning_rate,
    }
    depths = {part: _heights(part, model, args) for part in ("text_model", "vision_model")}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = next((part for part in rates if f".{part}." in f".{name}."), "heads")
            rate = learning_rate if rates[part] is None else rates[part]
            rate *= (args.layer_decay or 1) ** depths.get(part, {}).get(parameter, 0)
            groups.setdefault((rate, parameter.ndim >= 2), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": args.weight_decay if decays else 0.0}
        for (rate, decays), parameters in groups.items()
    ]


def _heights(part: str, model: nn.Module, args: HFClipTrainingArguments) -> dict[nn.Parameter, int]:
    """Parameter → how many floors below the top of its tower it lies; nothing without `layer_decay`."""
    tower: Any = getattr(model, part)
    if args.layer_decay is None or not any(p.requires_grad for p in tower.parameters()):
        return {}
    if tower.config.model_type == "timm_wrapper":
        return _heights_by_timm(tower.timm_model)
    blocks = repeated_blocks(tower)
    if not blocks:
        raise InputError(f"layer_decay: {type(tower).__name__} has no blocks that could be told apart: leave it out")
    block_of = {parameter: floor for floor, block in enumerate(blocks, 1) for parameter in block.parameters()}
    floor, floors = 0, {}
    for parameter in tower.parameters():
        # What lies between two blocks belongs to the lower one; what comes after the last is the roof.
        floor = max(floor, block_of.get(parameter, 0))
        floors[parameter] = block_of.get(parameter, floor if floor < len(blocks) else len(blocks) + 1)
    return {parameter: len(blocks) + 1 - floor for parameter, floor in floors.items()}


def _heights_by_timm(tower: Any) -> dict[nn.Parameter, int]:
    from timm.models import group_parameters

    floors = group_parameters(tower, tower.group_matcher(coarse=False), reverse=True)
    top = max(floors.values())
    return {parameter: top - floors[name] for name, parameter in tower.named_parameters()}
