"""What a card says of a loss: of hf_clip's as the loss itself has it, of one from outside as its run has said."""

from dataclasses import dataclass, field

from huggingface_hub.dataclasses import strict

from ...core.records import Record
from ...models.loss_hf_clip import Loss
from ...models.losses_hf_clip import LOSSES

# What a loss is called that a run computed by a function in place of its model's, and of which no more is known.
COMPUTED = "compute_loss_func"


@strict
@dataclass
class LossWords(Record):
    """See `Loss`."""

    name: str
    label: str
    sentence: str
    citations: list[str] = field(default_factory=list)

    @classmethod
    def computed(cls) -> "LossWords":
        return cls(COMPUTED, "a loss of the run's own", "The model was trained with a loss of its run's own")

    @classmethod
    def of(cls, loss: Loss) -> "LossWords":
        return cls(loss.name, loss.label, loss.sentence or "", list(loss.citations))


def words_of_loss(name: str, said: LossWords | None) -> LossWords:
    """
    Args:
        name: of the model's loss, as its configuration has it.
        said: by the run, of the loss that it trained with; None or of another name: nothing is known beyond the name.
    """
    if said and said.name == COMPUTED:
        return said
    if name in LOSSES:
        return LossWords.of(LOSSES[name])
    if said and said.name == name:
        return said
    return LossWords(name, name, f"The model was trained with the loss {name}, which is not part of hf_clip")
