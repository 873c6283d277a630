"""timm's towers: their first weights, and how their images are prepared."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from transformers import (
    TimmWrapperConfig,
    TimmWrapperModel,
)

from hf_clip import HFClipProcessor, create_model_and_processor


def test_a_timm_tower_from_scratch_begins_as_timm_begins_it(tower_folders, tmp_path):
    torch.manual_seed(0)
    model, processor = create_model_and_processor("scratch/timm/resnet18", tower_folders[1])
    expected = timm.create_model("resnet18", num_classes=0)
    for name, weight in model.vision_model.timm_model.state_dict().items():
        if weight.ndim == 4:
            assert weight.std().item() == pytest.approx(expected.state_dict()[name].std().item(), rel=0.1), name
    processor.save_pretrained(tmp_path / "saved")
    # Smooth: where the margin is odd, timm crops one pixel further than transformers.
    slope = np.add.outer(np.linspace(0, 120, 300), np.linspace(0, 130, 400)).astype(np.uint8)
    image = Image.fromarray(np.stack([slope, slope[::-1], slope[:, ::-1]], 2))
    data = timm.data.resolve_data_config(timm.get_pretrained_cfg("resnet18").to_dict())
    theirs = timm.data.create_transform(**data, is_training=False)(image)
    ours = HFClipProcessor.from_pretrained(tmp_path / "saved").image_processor(image, return_tensors="pt")
    assert (ours["pixel_values"][0] - theirs).abs().mean() < 0.03


def test_a_folder_of_a_timm_tower(tower_folders, tmp_path):
    config = TimmWrapperConfig.from_dict(
        {"architecture": "test_vit", "pretrained_cfg": timm.get_pretrained_cfg("test_vit").to_dict(), "num_classes": 0}
    )
    tower = TimmWrapperModel(config)
    tower.save_pretrained(tmp_path / "timm")
    model, processor = create_model_and_processor(str(tmp_path / "timm"), tower_folders[1])
    for name, weight in tower.state_dict().items():
        assert torch.equal(weight, model.vision_model.state_dict()[name]), name
    assert type(processor.image_processor).__name__.startswith("CLIPImageProcessor")
