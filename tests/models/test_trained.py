"""A folder opens only if it holds a whole trained model; what is opened already stays where it lies."""

import json
from pathlib import Path

import pytest
from conftest import tiny_model, tiny_text_config
from safetensors.torch import load_file, save_file
from transformers import BertModel
from transformers.utils import logging

import hf_clip
from hf_clip.core.errors import InputError
from hf_clip.models.trained import keep_modes, name_of, open_trained


@pytest.fixture
def folder(tmp_path, processor):
    tiny_model().save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_trained_model_opens(folder, processor):
    model, opened = open_trained(folder)
    assert not model.training
    assert all(
        a.equal(b) for a, b in zip(model.state_dict().values(), tiny_model().state_dict().values(), strict=True)
    )
    assert opened.tokenizer(["abc"])["input_ids"] == processor.tokenizer(["abc"])["input_ids"]


def cut_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def leave_out_a_head(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def put_another_model(folder):
    BertModel(tiny_text_config()).save_pretrained(folder)  # processor and tokenizer stay, and would open


DAMAGES = {
    "cut weights": (cut_weights, "not fully covered"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no file named model.safetensors"),
    "weights without a head": (leave_out_a_head, "1 of its weights are missing or of another size"),
    "heads of another size": (
        lambda folder: change_config(folder, projection_dim=8),
        "2 of its weights are missing or",
    ),
    "an unknown setting": (lambda folder: change_config(folder, text_pooling="max"), "unknown text_pooling 'max'"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), "not a valid JSON file"),
    "another model": (put_another_model, "it holds a bert model"),
    "no image processor": (lambda folder: (folder / "processor_config.json").unlink(), "image processor"),
    "broken tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{"), "line 1 column 2"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused(folder, damage, caplog):
    spoil, reason = DAMAGES[damage]
    spoil(folder)
    verbosity = logging.get_verbosity()
    with pytest.raises(InputError, match=f"model .* cannot be opened: give the folder or Hub id .*{reason}") as raised:
        open_trained(folder)
    assert "\n" not in str(raised.value)
    assert logging.get_verbosity() == verbosity


@pytest.mark.parametrize("name", ["missing/folder", "", "a b"])
def test_a_folder_that_is_not_there_is_refused(name):
    with pytest.raises(InputError, match=f"model '{name}' cannot be opened: give the folder or Hub id"):
        open_trained(name)


def test_an_opened_pair_is_taken_as_it_is(processor):
    model = tiny_model().train()
    assert name_of((model, processor)) == "HFClipModel"
    assert model.training
    assert open_trained((model, processor)) == (model, processor)
    assert not model.training


def modes(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("shape", [lambda pair: pair, lambda pair: [pair, "x"], lambda pair: {"a": pair}])
def test_a_caller_s_model_is_in_the_mode_it_was_in(shape, processor):
    """Module by module, whether it is given by place or by name, and after a failure too."""
    model = tiny_model().train()
    model.vision_model.eval()
    before = modes(model)
    assert len(set(before)) == 2

    @keep_modes
    def work(model, fails=False):
        assert not any(modes(open_trained(pair)[0]))
        if fails:
            raise KeyError

    pair = (model, processor)
    work(shape(pair))
    assert modes(model) == before
    with pytest.raises(KeyError):
        work(model=shape(pair), fails=True)
    assert modes(model) == before


def test_every_public_function_gives_the_model_back_as_it_was(processor, pictures, tmp_path):
    model = tiny_model().train()
    model.text_model.eval()
    pair, before, options = (model, processor), modes(model), hf_clip.EmbedOptions(progress=False)
    for work in (
        lambda: hf_clip.embed(pair, pictures, options=options),
        lambda: hf_clip.evaluate(pair, pictures, hf_clip.EvaluationSettings(resamples=2), options=options),
        lambda: hf_clip.analyze(pair, pictures, options=options),
        lambda: hf_clip.classify(pair, pictures / "0.png", ["a cat", "dog"]),
    ):
        work()
        assert modes(model) == before
    with pytest.raises(InputError, match="no data at 'nowhere'"):
        hf_clip.export(pair, tmp_path / "onnx", int8_data="nowhere")
    assert modes(model) == before


@pytest.mark.parametrize("given", [None, 3, ("model", "processor"), ["a"]])
def test_what_is_no_model_is_refused(given):
    with pytest.raises(InputError, match=r"model is a \w+: give a folder, a Hub id, or the pair \(model, processor\)"):
        open_trained(given)


def test_a_name_tells_nothing_of_where_it_lies(folder, processor):
    assert name_of(folder) == name_of(str(folder)) == "model"
    assert name_of("user/my-clip") == "user/my-clip"
    assert name_of(open_trained(Path(folder))) == "model"
    assert name_of((tiny_model(), processor)) == "HFClipModel"
