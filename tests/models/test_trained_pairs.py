"""A trained pair opened again."""

import pytest
import torch

from hf_clip import create_model_and_processor
from hf_clip.core.errors import InputError
from hf_clip.models.towers import open_model_and_processor


def test_a_trained_pair_opens_as_it_was_saved(tower_folders, tmp_path):
    model, processor = create_model_and_processor(*tower_folders, max_text_length=9)
    model.save_pretrained(tmp_path / "pair")
    processor.save_pretrained(tmp_path / "pair")
    again, policy = open_model_and_processor(str(tmp_path / "pair"), image_size=48)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert (policy.max_text_length, policy.image_processor.crop_size["height"]) == (9, 48)
    with pytest.raises(
        InputError, match="cannot be opened: give the folder or Hub id of a model that hf_clip trained"
    ):
        open_model_and_processor(tower_folders[0])
