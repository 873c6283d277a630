"""ResNets by their depth."""

import pytest
import torch
from torchvision.models import resnet18, resnet50
from transformers import (
    AutoModel,
)

from hf_clip.models.tower_sources.resnets import resnet_config


@pytest.mark.parametrize(("name", "reference"), [("resnet-18", resnet18), ("resnet-50", resnet50)])
def test_resnets_from_scratch_are_the_published_ones(name, reference):
    """As many parameters as torchvision's without its classifier."""
    with torch.device("meta"):
        ours, theirs = AutoModel.from_config(resnet_config(name)), reference()
    count = sum(p.numel() for p in theirs.parameters()) - sum(p.numel() for p in theirs.fc.parameters())
    assert sum(p.numel() for p in ours.parameters()) == count
