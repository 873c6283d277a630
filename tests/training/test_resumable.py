"""What of the Trainer's private methods is overridden, and whether the installed one still has them as they were."""

import inspect

import pytest
import transformers
from transformers import Trainer

from hf_clip import HFClipTrainer
from hf_clip.training.resumable import CALLED, PRIVATE, ResumableTrainer, last_checkpoint


@pytest.mark.parametrize(("name", "known"), (PRIVATE | CALLED).items())
def test_the_installed_trainer_has_what_is_overridden(name, known):
    """The one test that says which release broke which override."""
    method = getattr(Trainer, name, None)
    found = tuple(inspect.signature(method).parameters)[1:] if method else None
    assert found == known, (
        f"transformers {transformers.__version__} has Trainer.{name} with {found}, and hf_clip/training/resumable.py "
        f"knows it with {known}: look at what it does now, and at the override"
    )


def test_nothing_private_is_overridden_but_there():
    """A name of the Trainer's own; of its classes in between none has another."""
    kinds = [kind for kind in HFClipTrainer.__mro__ if kind.__module__.startswith("hf_clip")]
    overridden = {
        (kind, name)
        for kind in kinds
        for name in vars(kind)
        if name.startswith("_") and not name.startswith("__") and hasattr(Trainer, name)
    }
    assert overridden == {(ResumableTrainer, name) for name in PRIVATE}


def test_a_private_method_that_is_called_is_listed():
    text = "".join(
        inspect.getsource(inspect.getmodule(kind))
        for kind in HFClipTrainer.__mro__
        if kind.__module__.startswith("hf_clip")
    )
    private = [name for name in vars(Trainer) if name.startswith("_") and not name.startswith("__")]
    assert {name for name in private if f"self.{name}(" in text} <= {*PRIVATE, *CALLED}


def test_the_last_checkpoint_is_the_one_of_most_steps(tmp_path):
    assert last_checkpoint(tmp_path / "nowhere") is None
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
