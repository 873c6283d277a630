"""The processor: what it gives, saves and loads."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from hf_clip import HFClipModel, HFClipProcessor


def test_pictures_and_captions_in_one_call(processor):
    batch = processor(images=Image.new("RGB", (50, 40), "red"), text=["a b", "a b c d"], return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 3, 32, 32)
    assert batch["input_ids"].shape == (2, 6)  # padded to the longest: [CLS] a b c d [SEP]
    assert batch["attention_mask"].sum(1).tolist() == [4, 6]
    # (255/255 − mean) / std for red, (0 − mean) / std for green and blue, by ImageNet's statistics
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    torch.testing.assert_close(batch["pixel_values"][0, :, 3, 3], expected, rtol=1e-4, atol=1e-4)


def test_images_are_opened_as_in_training_and_arrays_stay_as_they_are(processor, tmp_path):
    clear = Image.new("RGBA", (50, 40), (255, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    white = processor.image_processor(images=Image.new("RGB", (50, 40), "white"), return_tensors="pt")["pixel_values"]
    for images in (clear, [clear], [[clear]], str(tmp_path / "clear.png"), np.full((40, 50, 3), 255, np.uint8)):
        assert torch.equal(processor(images=images, return_tensors="pt")["pixel_values"], white)
    with pytest.raises(ValueError, match="nothing says which is white"):
        processor(images=Image.new("I", (4, 4), 200))


def test_saved_and_loaded_it_is_the_same(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, HFClipProcessor)
    assert loaded.to_dict() == processor.to_dict()
    picture = Image.linear_gradient("L").convert("RGB")
    for name, value in processor(images=picture, text=["x y"], return_tensors="pt").items():
        assert torch.equal(value, loaded(images=picture, text=["x y"], return_tensors="pt")[name])
    saved = json.loads((tmp_path / "processor_config.json").read_text())
    assert saved["auto_map"] == {"AutoProcessor": "processing_hf_clip.HFClipProcessor"}
    assert (tmp_path / "processing_hf_clip.py").is_file()


def test_from_two_towers(tower_folders):
    processor = HFClipProcessor.from_vision_text_pretrained(*tower_folders)
    assert processor.image_processor.crop_size["height"] == 32
    assert processor.tokenizer("a b")["input_ids"] == [2, 5, 6, 3]


def test_an_order_mix_up_is_refused(processor):
    with pytest.raises(TypeError, match="BertTokenizer for argument image_processor"):
        HFClipProcessor(processor.tokenizer, processor.image_processor)


def test_a_fixed_length_is_kept_when_saved(processor, tmp_path):
    fixed = HFClipProcessor(
        processor.image_processor, processor.tokenizer, text_padding="max_length", max_text_length=8
    )
    fixed.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert (loaded.text_padding, loaded.max_text_length) == ("max_length", 8)
    for each in (fixed, loaded):
        batch = each(text=["a b", "a b c d e f g h i j"], return_tensors="pt")
        assert batch["attention_mask"].sum(1).tolist() == [4, 8]  # the second is cut
        assert batch["input_ids"].shape == (2, 8)
    assert fixed(text=["a b"], padding="longest", return_tensors="pt")["input_ids"].shape == (1, 4)
    assert fixed(text=["a b"], text_kwargs={"padding": False})["input_ids"] == [[2, 5, 6, 3]]


@pytest.mark.parametrize(
    ("policy", "message"),
    [({"text_padding": "left"}, "longest, max_length"), ({"text_padding": "max_length"}, "needs max_text_length")],
)
def test_a_policy_that_makes_no_sense_is_refused(processor, policy, message):
    with pytest.raises(ValueError, match=message):
        HFClipProcessor(processor.image_processor, processor.tokenizer, **policy)


def test_without_a_length_of_its_own_it_cuts_at_the_tokenizer_s(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    for each in (processor, loaded):
        assert each.max_text_length is None
        batch = each(text=["a " * 100, "a"], return_tensors="pt")
        assert batch["attention_mask"].sum(1).tolist() == [64, 3]
        assert each(text="a " * 100, max_length=9)["input_ids"][-1] == 3
        assert len(each(text="a " * 100, max_length=9)["input_ids"]) == 9
        assert len(each(text="a " * 100, truncation=False)["input_ids"]) == 102
    processor.tokenizer.model_max_length = int(1e30)  # what transformers writes for "no limit"
    assert len(processor(text="a " * 100)["input_ids"]) == 102


def test_a_text_of_any_length_runs_in_a_model_saved_by_the_first_version():
    folder = Path(__file__).parents[1] / "fixtures" / "saved_by_0.1"
    model, processor = HFClipModel.from_pretrained(folder), HFClipProcessor.from_pretrained(folder)
    with torch.no_grad():
        assert model(**processor(text=["a " * 600, "b"], return_tensors="pt")).text_embeds.isfinite().all()
