"""torchvision's ResNets: the same numbers, and weights that do not fit."""

import os

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.models import resnet18

from hf_clip import create_model_and_processor
from hf_clip.core.errors import InputError
from hf_clip.models.tower_sources.torchvision_towers import torchvision_image_processor


def randomised(reference):
    """torchvision's ResNet with no number left that a wrong key would not be noticed by."""
    torch.manual_seed(0)
    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values, low, high in (
                (module.weight, 0.2, 0.8), (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3), (module.running_var, 0.5, 1.5),
            ):  # fmt: skip
                values.data.uniform_(low, high)
    return reference.eval()


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet34",
        "resnet50",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("resnet101", "resnet152")),
    ],
)
def test_a_resnet_of_torchvision_computes_the_same(name, tmp_path, tower_folders):
    reference = randomised(torchvision.models.get_model(name))
    state = {f"module.{key}": value for key, value in reference.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "weights.pth")
    model, processor = create_model_and_processor(f"torchvision/{name}:{tmp_path}/weights.pth", tower_folders[1])
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        output = model.vision_model.eval()(pixels)
        body = torch.nn.Sequential(*list(reference.children())[:-2])(pixels)
    torch.testing.assert_close(output.last_hidden_state, body, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.pooler_output.flatten(1), body.mean((2, 3)), rtol=1e-5, atol=1e-5)
    assert processor.image_processor.crop_size["height"] == 224


def test_pictures_are_prepared_as_the_weights_of_torchvision_want():
    from torchvision.models import ResNet50_Weights

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8))
    ours = torchvision_image_processor(ResNet50_Weights.IMAGENET1K_V2.transforms())(image, return_tensors="pt")
    theirs = ResNet50_Weights.IMAGENET1K_V2.transforms()(image)
    assert ours["pixel_values"][0].shape == theirs.shape
    assert (ours["pixel_values"][0] - theirs).abs().mean() < 0.02  # rounded to a byte after resizing, or not


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer2.0.bn1.weight"), "lacks 'layer2.0.bn1.weight'"),
        (lambda state: state.update(extra=torch.zeros(1)), "has an unknown 'extra'"),
        (lambda state: state.update({"conv1.weight": torch.zeros(1)}), "has another shape of 'conv1.weight'"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(change, message, tmp_path, tower_folders):
    state = resnet18().state_dict()
    change(state)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=message):
        create_model_and_processor(f"torchvision/resnet18:{tmp_path}/weights.pth", tower_folders[1])


class Malicious:
    def __reduce__(self):
        return open, (os.environ["HF_CLIP_TRACE"], "w")


def test_no_code_of_a_pickle_is_run(tmp_path, tower_folders, monkeypatch):
    monkeypatch.setenv("HF_CLIP_TRACE", str(tmp_path / "trace"))
    torch.save({"conv1.weight": Malicious()}, tmp_path / "weights.pth")
    (tmp_path / "resnet" / "model.safetensors").unlink()
    torch.save({"embedder": Malicious()}, tmp_path / "resnet" / "pytorch_model.bin")
    for name in (f"torchvision/resnet18:{tmp_path}/weights.pth", tower_folders[0]):
        with pytest.raises(InputError, match="plain tensors") as caught:
            create_model_and_processor(name, tower_folders[1])
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "trace").exists()
