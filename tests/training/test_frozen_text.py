"""The memory of a frozen text tower: the same vectors, and each caption embedded once."""

import pytest
import torch
from conftest import tiny_inputs, tiny_model, write_pictures
from training_runs import make_trainer

from hf_clip import HFClipTrainingArguments
from hf_clip.training.frozen_text import FrozenTextMemory


def test_each_caption_is_embedded_once_until_the_memory_is_full():
    model = tiny_model().eval()
    tokens = {name: value for name, value in tiny_inputs(pairs=4).items() if name != "pixel_values"}
    expected = model.pool_text(**tokens).detach()
    embedded = []
    model.text_model.register_forward_pre_hook(
        lambda module, args, kwargs: embedded.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    memory = FrozenTextMemory(model, capacity=3)
    rows = torch.tensor([0, 1, 1, 2, 3, 0])  # six captions, four of them distinct
    for _ in range(2):
        batch = memory(torch.tensor([10, 11, 11, 12, 13, 10]), {name: value[rows] for name, value in tokens.items()})
        torch.testing.assert_close(batch, expected[rows])
    assert embedded == [4, 1]  # the fourth did not fit


def test_training_with_it_ends_with_the_same_weights(tmp_path):
    data = write_pictures(tmp_path / "pictures", captions_each=2)
    weights = []
    for remember in (True, False):
        trainer = make_trainer(
            tmp_path / str(remember), data, num_train_epochs=3, freeze_text=True, remember_frozen_text=remember
        )
        trainer.train()
        weights.append(trainer.model.state_dict())
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-4, atol=1e-5, msg=name)


def test_needs_a_frozen_tower(tmp_path):
    with pytest.raises(ValueError, match="remember_frozen_text needs freeze_text"):
        HFClipTrainingArguments(output_dir=str(tmp_path), remember_frozen_text=True)
