"""A source of towers from outside the package: opened, trained on, named in help, errors and the card."""

import json

import pytest
import torch
from cards import card, metadata
from conftest import tiny_text_config, tiny_vision_config
from transformers import AutoTokenizer, BertModel, ResNetModel

from hf_clip import create_model_and_processor
from hf_clip.cli.main import main
from hf_clip.core.errors import InputError
from hf_clip.models.image_processors import square_image_processor
from hf_clip.models.tower_sources import registry
from hf_clip.models.tower_sources.registry import find_tower_source, register_tower_source, repository_of, tower_names
from hf_clip.models.tower_sources.source import ImageTower, TextTower, TowerSource


class Toys(TowerSource):
    """Towers of constant weights, and a tokenizer from a folder."""

    prefix = "toy/"
    names = {"vision": "toy/cube or toy/ball", "text": "toy/rhyme"}
    tokenizer = ""

    def open_image_tower(self, name, *, pretrained, pooling):
        if name not in ("cube", "ball"):
            raise InputError(f"no toy {name!r}: choose {self.names['vision']}")
        tower = ResNetModel(tiny_vision_config())
        if pretrained:
            for parameter in tower.parameters():
                parameter.data.fill_(0.125)
        return ImageTower(tower, square_image_processor(48))

    def open_text_tower(self, name, *, pretrained, pooling):
        return TextTower(BertModel(tiny_text_config()), AutoTokenizer.from_pretrained(self.tokenizer), "cls", 7)


@pytest.fixture
def toys(tower_folders, monkeypatch):
    monkeypatch.setattr(registry, "SOURCES", list(registry.SOURCES))
    source = Toys()
    source.tokenizer = tower_folders[1]
    register_tower_source(source)
    return source


def test_towers_of_a_source_from_outside_are_paired(toys):
    model, processor = create_model_and_processor("toy/cube", "toy/rhyme")
    assert all((parameter == 0.125).all() for parameter in model.vision_model.parameters())
    assert model.config.text_pooling == "cls"
    assert (processor.image_processor.crop_size["height"], processor.max_text_length) == (48, 7)
    fresh, _ = create_model_and_processor("scratch/toy/cube", "toy/rhyme", text_pooling="mean")
    assert not all((parameter == 0.125).all() for parameter in fresh.vision_model.parameters())
    assert fresh.config.text_pooling == "mean"


def test_a_tower_that_no_saved_pair_could_hold_is_refused(toys, tower_folders, monkeypatch):
    unknown = ResNetModel(tiny_vision_config())
    unknown.config.model_type = "of_nobody"
    for model, kind in ((unknown, "of_nobody"), (torch.nn.Identity(), "Identity")):
        tower = ImageTower(model, square_image_processor(32))
        monkeypatch.setattr(toys, "open_image_tower", lambda name, tower=tower, **asked: tower)
        with pytest.raises(InputError, match=f"vision_model: transformers does not know its type '{kind}'"):
            create_model_and_processor("toy/cube", tower_folders[1])


def test_a_tower_in_half_precision_is_trained_in_full(toys, tower_folders, monkeypatch):
    tower = ImageTower(ResNetModel(tiny_vision_config()).bfloat16(), square_image_processor(32))
    monkeypatch.setattr(toys, "open_image_tower", lambda name, **asked: tower)
    assert create_model_and_processor("toy/cube", tower_folders[1])[0].vision_model.dtype == torch.float32


def test_a_run_on_a_toy_says_so_in_its_card(toys, tower_folders, pictures, tmp_path):
    run = tmp_path / "run"
    assert main([
        "train", "--vision_model", "toy/ball", "--text_model", tower_folders[1], "--train_data", str(pictures),
        "--output_dir", str(run), "--num_train_epochs", "1", "--projection_dim", "16", "--use_cpu",
    ]) == 0  # fmt: skip
    assert json.loads((run / "training.json").read_text())["vision_model"] == "toy/ball"
    registry.SOURCES.remove(toys)  # whoever publishes the run may not have it
    made = card(run)
    assert "ResNet: toy/ball; " in made
    assert "base_model" not in metadata(made)


def test_help_and_errors_name_it(toys, tower_folders, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "toy/cube or toy/ball" in said
    assert "toy/rhyme" in said
    with pytest.raises(InputError, match="vision_model: no toy 'rhyme': choose toy/cube or toy/ball"):
        create_model_and_processor("toy/rhyme", tower_folders[1])
    with pytest.raises(InputError, match=r"text_model 'no/such' cannot be opened: give a Hub id, .* or toy/rhyme"):
        create_model_and_processor("toy/ball", "no/such")


@pytest.mark.parametrize("prefix", ["timm/", "timm/mine/", "scratch/", "./", "mine", ""])
def test_a_prefix_that_tells_it_from_nothing_is_refused(prefix, monkeypatch):
    monkeypatch.setattr(registry, "SOURCES", before := list(registry.SOURCES))
    with pytest.raises(ValueError, match="give"):
        register_tower_source(type("Mine", (Toys,), {"prefix": prefix})())
    assert before == registry.SOURCES
    assert tower_names("text").startswith("a Hub id, a folder with config.json and weights")


@pytest.mark.parametrize(
    ("name", "side", "source", "own_name", "pretrained"),
    [
        ("google-bert/bert-base-uncased", "text", "Hub", "google-bert/bert-base-uncased", True),
        ("scratch/bert", "text", "Hub", "bert", False),
        ("scratch/resnet-10", "vision", "ResNets", "resnet-10", False),
        ("resnet-10", "vision", "Hub", "resnet-10", True),
        ("scratch/timm/resnet18", "vision", "Timm", "resnet18", False),
        ("torchvision/resnet18:mine.pth", "vision", "Torchvision", "resnet18:mine.pth", True),
    ],
)
def test_a_name_finds_its_source(name, side, source, own_name, pretrained):
    found, *rest = find_tower_source(name, side)
    assert [type(found).__name__, *rest] == [source, own_name, pretrained]


def test_a_source_without_towers_of_a_side_is_not_asked_for_one_nor_is_the_hub(tower_folders):
    with pytest.raises(
        InputError, match="text_model: 'timm/resnet18' is of a source that has image towers only: give"
    ):
        create_model_and_processor(tower_folders[0], "timm/resnet18")
    assert repository_of("timm/resnet18", "text", {}) is None


class Cubes(TowerSource):
    """Image towers alone."""

    prefix = "cubes/"
    names = {"vision": "cubes/one"}

    def open_image_tower(self, name, *, pretrained, pooling):
        return ResNetModel(tiny_vision_config())


def test_what_is_no_tower_is_refused(toys, tower_folders):
    register_tower_source(Cubes())
    with pytest.raises(InputError, match="vision_model: its source gives a ResNetModel, and no ImageTower: wrap it"):
        create_model_and_processor("cubes/one", tower_folders[1])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"vison": "cubes/one"}, r"names has the sides \['vison'\]: give 'vision', 'text' or both"),
        ({}, "give 'vision', 'text' or both"),
        (
            {"vision": "cubes/one", "text": "cubes/two"},
            "names has 'text', of which it opens no towers: give it open_text_t",
        ),
    ],
)
def test_a_source_opens_the_sides_that_it_names(names, message, monkeypatch):
    monkeypatch.setattr(registry, "SOURCES", list(registry.SOURCES))
    with pytest.raises(ValueError, match=message):
        register_tower_source(type("Mine", (Cubes,), {"names": names})())


def test_a_source_replaces_one_of_its_prefix_and_no_other_of_its_class(toys):
    first, second = Cubes(), Cubes()
    second.prefix = "more_cubes/"
    for source in (first, second):
        register_tower_source(source)
    assert registry.SOURCES[:3] == [second, first, toys]
    again = type("Cubes", (Cubes,), {})()  # as a notebook's cell makes it a second time
    register_tower_source(again)
    assert registry.SOURCES[:3] == [again, second, toys]


def test_a_folder_of_such_a_name_is_a_folder(tmp_path, monkeypatch):
    (tmp_path / "timm" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert type(find_tower_source("timm/mine", "vision")[0]).__name__ == "Hub"


def test_the_repository_of_the_weights():
    tagged = {"architecture": "resnet50", "pretrained_cfg": {"tag": "a1_in1k"}}
    assert repository_of("timm/resnet50", "vision", tagged) == "timm/resnet50.a1_in1k"
    assert repository_of("google-bert/bert-base-uncased", "text", {}) == "google-bert/bert-base-uncased"
    assert repository_of("torchvision/resnet18", "vision", {}) is None
    assert repository_of("scratch/timm/resnet50", "vision", tagged) is None
