"""Activation checkpointing: less memory, the same gradients, statistics and names."""

import copy

import pytest
import torch
from conftest import tiny_inputs, tiny_model, tiny_vision_config
from model_checks import bytes_saved_for_backward

from hf_clip import HFClipModel


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_saves_memory_and_changes_nothing_else(layer_type, use_reentrant):
    plain = tiny_model(vision_config=tiny_vision_config(layer_type, depths=[2, 2, 2, 2])).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    assert checkpointed.is_gradient_checkpointing
    inputs = tiny_inputs(pairs=8)
    needed = bytes_saved_for_backward(plain, inputs)
    assert bytes_saved_for_backward(checkpointed, inputs) <= 0.6 * needed
    for (name, parameter), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(other.grad, parameter.grad, msg=name)
    for (name, buffer), other in zip(plain.named_buffers(), checkpointed.named_buffers(), strict=True):
        assert torch.equal(buffer, other[1]), name  # BatchNorm statistics: updated once, not twice
    checkpointed.activation_checkpointing_disable()
    assert bytes_saved_for_backward(checkpointed, inputs) == pytest.approx(needed, rel=0.05)


def test_a_checkpointed_model_has_the_same_weight_names_and_saves(tmp_path):
    model = tiny_model()
    names = list(model.state_dict())
    model.activation_checkpointing_enable()
    assert list(model.state_dict()) == names
    model.save_pretrained(tmp_path)
    assert list(HFClipModel.from_pretrained(tmp_path).state_dict()) == names
