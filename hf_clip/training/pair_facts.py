"""What a dual encoder's run says of itself: what any run says, and its towers and its temperature."""

from collections.abc import Callable
from typing import Protocol

from transformers import PreTrainedConfig, TrainerState

from ..core.public import is_path, public_name
from ..models.modeling_hf_clip import HFClipModel
from ..models.tower_sources.registry import repository_of
from ..publishing.clip.loss_words import LossWords
from ..publishing.clip.training_record import PairTrainingRecord
from .facts import Origin, TrainerToAsk, parameter_counts, training_facts


class PairTrainerToAsk(TrainerToAsk, Protocol):
    """And of that of a dual encoder."""

    compute_loss_func: Callable[..., object] | None


def pair_facts(trainer: PairTrainerToAsk, origin: Origin) -> PairTrainingRecord:
    """As far as the run has come."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    said = vars(training_facts(trainer, origin)) | {
        "vision_model": _tower_name(origin.vision_model, model.config.vision_config),
        "text_model": _tower_name(origin.text_model, model.config.text_config),
        "repositories": _repositories(origin, model.config),
        "parameters": parameter_counts(model, ("text_model", "vision_model")),
        "temperature": _logged(trainer.state, "temperature"),
        "loss": LossWords.computed() if trainer.compute_loss_func else _own_loss(model),
    }
    return PairTrainingRecord(**said)


def _own_loss(model: HFClipModel) -> LossWords | None:
    """What a card says of a loss that is none of hf_clip's, and so is not there where the card is written."""
    own = model.own_loss
    return None if own is None else LossWords.of(own)


def _tower_name(given: str, config: PreTrainedConfig) -> str:
    """As it was given, or as transformers remembers it; a folder is no name that others could use."""
    known = given or getattr(config, "_name_or_path", "") or ""
    return public_name(known) if given else "" if is_path(known) else known


def _repositories(origin: Origin, config: PreTrainedConfig) -> dict[str, str | None]:
    """side → the Hub repository of its tower's weights, where its name is known: who reads it may not know the source
    that the tower came from."""
    given = {"vision": origin.vision_model, "text": origin.text_model}
    configs = {side: getattr(config, f"{side}_config") for side in given}
    names = {side: name or _tower_name("", configs[side]) for side, name in given.items()}
    return {side: repository_of(name, side, configs[side].to_dict()) for side, name in names.items() if name}


def _logged(state: TrainerState, name: str) -> float | None:
    """The last of it that was logged: of sharded weights one process alone cannot ask."""
    return next((entry[name] for entry in reversed(state.log_history) if name in entry), None)
