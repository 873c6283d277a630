"""The types of what a trainer is given."""

import inspect

from transformers import Trainer

from hf_clip.data.columns import ColumnSettings
from hf_clip.training.base import BaseTrainer
from hf_clip.training.trainer_parts import TrainerParts


def test_each_argument_of_the_trainer_has_a_type():
    """Of transformers' own, of our base's, and the columns."""
    inherited = set(inspect.signature(Trainer.__init__).parameters) - {"self", "model", "args"}
    ours = set(inspect.signature(BaseTrainer.__init__).parameters) - {"self", "model", "args", "others", "kwargs"}
    columns = set(ColumnSettings.__annotations__)
    assert set(TrainerParts.__annotations__) | columns == inherited | ours | columns
