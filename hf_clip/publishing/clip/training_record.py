"""What a dual encoder's run says beyond what any run says."""

from dataclasses import dataclass, field

from huggingface_hub.dataclasses import strict

from ...core.training_record import TrainingRecord
from .loss_words import LossWords


@strict
@dataclass
class PairTrainingRecord(TrainingRecord):
    """
    Args:
        vision_model, text_model: what the towers were opened from, as others could open them; empty: nothing such.
        repositories: where the towers' weights lie on the Hub, by side, as far as the towers have names.
        temperature: the last of the run.
        loss: what a card says of it where it is none of hf_clip's, and so is not there when the card is written.
    """

    models = ("vision_model", "text_model", *TrainingRecord.models)

    vision_model: str | None = None
    text_model: str | None = None
    repositories: dict[str, str | None] = field(default_factory=dict)
    temperature: float | None = None
    loss: LossWords | None = None

    def opened_from(self, side: str) -> str | None:
        return self.vision_model if side == "vision" else self.text_model

    def has_frozen(self, side: str) -> bool:
        """
        Args:
            side: "vision" or "text".
        """
        return bool(self.hyperparameters.changed.get(f"freeze_{side}"))
