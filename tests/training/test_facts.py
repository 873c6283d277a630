"""What a run says of itself: counts made by hand, and nothing of the machine."""

import enum
import json
import sys
import types

import pytest
import torch
from conftest import tiny_model, write_pictures
from torch.utils.data import ConcatDataset, Subset
from training_runs import make_processor, make_trainer

from hf_clip import HFClipTrainer, HFClipTrainingArguments
from hf_clip.data.augmentation import Augmentation
from hf_clip.data.mixture import MixedPairs
from hf_clip.data.sources import open_source
from hf_clip.data.streaming import StreamedPairs
from hf_clip.training.data_sets import Drawing, training_pairs
from hf_clip.training.facts import MeasureEmissions, Origin


@pytest.fixture
def data(tmp_path):
    return write_pictures(tmp_path / "pictures", count=8, captions_each=3)


def facts_of(trainer, **origin):
    trainer.origin = Origin(**origin)
    facts = trainer.training_facts()
    return json.loads(json.dumps(facts.to_json(), allow_nan=False))


def test_data_are_counted(tmp_path, data):
    """Captions "red a", "very red a", "very very red a": 2, 3 and 4 words."""
    facts = facts_of(make_trainer(tmp_path / "run", data))
    assert facts["data"] == [
        {
            "name": "pictures", "weight": None, "pictures": 8, "captions_per_picture": 3.0,
            "words": {"median": 3.0, "shortest": 2, "longest": 4, "captions_looked_at": 24},
        }
    ]  # fmt: skip
    assert facts_of(make_trainer(tmp_path / "run", data), data="pictures of us")["data"][0]["name"] == "pictures of us"


def test_captions_without_spaces_are_counted_in_characters(tmp_path, data):
    rows = [{"file_name": f"{i}.png", "caption": "红色的圆" + "大" * i} for i in range(3)]
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (found,) = facts_of(make_trainer(tmp_path / "run", data))["data"]
    assert found["characters"] == {"median": 5.0, "shortest": 4, "longest": 6, "captions_looked_at": 3}
    assert "words" not in found


def trainer_on(pairs, tmp_path, **args):
    processor = make_processor(tmp_path / "tokenizer")
    settings = HFClipTrainingArguments(str(tmp_path / "run"), use_cpu=True, **args)
    return HFClipTrainer(
        tiny_model(), settings, train_dataset=pairs,
        processing_class=processor,
    )  # fmt: skip


def test_of_several_sources_each_says_its_share(tmp_path, data):
    """8 and 4 pictures, drawn 1 to 3: of an epoch's 12 items 3 are of the first and 9 of the second."""
    few = open_source(write_pictures(tmp_path / "few", count=4))
    processor, args = make_processor(tmp_path / "tokenizer"), HFClipTrainingArguments(str(tmp_path), use_cpu=True)
    mixed = training_pairs([open_source(data), few], processor, args, Drawing(Augmentation(flip=0.5), [1, 3]))
    assert isinstance(mixed, MixedPairs)
    facts = facts_of(trainer_on(mixed, tmp_path))
    assert [(part["name"], part["weight"], part["pictures"]) for part in facts["data"]] == [
        ("pictures", 0.25, 8), ("few", 0.75, 4),
    ]  # fmt: skip
    assert facts["augmentation"] == {"flip": 0.5}


def test_of_a_stream_no_count_is_known(tmp_path, data):
    source = open_source(data, streaming=True)
    pairs = StreamedPairs(source, make_processor(tmp_path / "t").image_processor, Augmentation())
    assert facts_of(trainer_on(pairs, tmp_path, max_steps=2))["data"] == [
        {"name": "pictures", "weight": None, "streamed": True}
    ]


def test_settings_that_differ_stand_apart_and_none_tells_of_the_machine(tmp_path, data):
    token = "hf_" + "s" * 34
    trainer = make_trainer(
        tmp_path / "run", data, learning_rate=1e-3, layer_decay=0.75, freeze_text=True, hub_token=token, run_name="me",
        per_device_train_batch_size=4, eval_strategy="epoch", logging_steps=3,
    )  # fmt: skip
    settings = facts_of(trainer)["hyperparameters"]
    expected = {"learning_rate": 1e-3, "layer_decay": 0.75, "freeze_text": True, "per_device_train_batch_size": 4,
                "num_train_epochs": 1}  # fmt: skip
    assert settings["changed"] == expected
    assert settings["default"]["weight_decay"] == 0.1
    assert settings["default"]["lr_scheduler_type"] == "cosine"
    text = json.dumps(facts_of(trainer, vision_model=str(tmp_path / "resnet"), started_from=str(tmp_path / "old")))
    assert token not in text
    assert str(tmp_path) not in text
    assert '"resnet"' in text
    assert '"old"' in text


def test_the_course_of_a_run(tmp_path, data):
    """8 pairs in batches of 4 for 3 epochs: 6 steps."""
    trainer = make_trainer(tmp_path / "run", data, num_train_epochs=3, save_strategy="steps", save_steps=3)
    before = facts_of(trainer)
    assert (before["steps"], before["seconds"]) == (0, None)
    trainer.train()
    facts = facts_of(trainer)
    assert (facts["steps"], facts["epochs"], facts["batch_size"]) == (6, 3.0, 4)
    assert facts["seconds"] > 0
    assert facts["pairs_per_second"] == pytest.approx(24 / facts["seconds"], rel=0.01)
    assert facts["temperature"] == pytest.approx(0.07, rel=0.1)
    assert facts["emissions"] is None
    parts = facts["parameters"]
    assert parts["heads"] == 32 * 16 + 40 * 16 + 1
    assert sum(parts[name] for name in ("text_model", "vision_model", "heads")) == sum(
        p.numel() for p in trainer.model.parameters()
    )
    resumed = make_trainer(tmp_path / "run", data, num_train_epochs=3)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    assert facts_of(resumed)["steps"] == 6
    assert facts_of(resumed)["seconds"] is None  # of the last part alone it would mislead


def test_emissions_are_measured_where_codecarbon_is(tmp_path, data, monkeypatch):
    class Tracker:
        running = 0

        def __init__(self, **settings):
            assert settings["save_to_file"] is False

        def start(self):
            Tracker.running += 1

        def stop(self):
            Tracker.running -= 1
            self.final_emissions_data = types.SimpleNamespace(
                emissions=0.0012, energy_consumed=0.004, country_name="Iceland"
            )

    monkeypatch.setitem(sys.modules, "codecarbon", types.SimpleNamespace(EmissionsTracker=Tracker))
    trainer = make_trainer(tmp_path / "run", data, callbacks=[MeasureEmissions()])
    trainer.train()
    assert Tracker.running == 0
    assert facts_of(trainer)["emissions"] == {"kg": 0.0012, "kwh": 0.004, "grid": "Iceland", "source": "codecarbon"}


class Kind(enum.Enum):
    A = "a"


class Own(torch.utils.data.Dataset):
    """A user's data set, which calls other things `source` and `draw`."""

    def __init__(self, pairs):
        self.pairs, self.source, self.draw = pairs, "my pictures", lambda: None

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, row):
        return self.pairs[row]

    def set_epoch(self, epoch):
        self.pairs.set_epoch(epoch)


def test_a_data_set_of_one_s_own_says_nothing_of_its_data(tmp_path, data):
    own = Own(make_trainer(tmp_path / "run", data).train_dataset)
    facts = facts_of(trainer_on(own, tmp_path))
    assert (facts["data"], facts["augmentation"]) == ([], {})


def test_torchs_wrappers_say_what_they_chose(tmp_path, data):
    """Three rows of eight, one of them twice, and five of another source."""
    whole = make_trainer(tmp_path / "run", data).train_dataset
    other = make_trainer(tmp_path / "run", write_pictures(tmp_path / "other", count=5)).train_dataset
    (found,) = facts_of(trainer_on(Subset(whole, [0, 3, 3, 5]), tmp_path))["data"]
    assert (found["name"], found["weight"], found["pictures"], found["captions_per_picture"]) == (
        "pictures",
        None,
        3,
        3,
    )
    both = ConcatDataset([Subset(whole, [0, 3, 3, 5, 6]), MixedPairs([other, whole], [4, 1])])  # 5 and 13 rows
    found = [(each["name"], each["weight"], each["pictures"]) for each in facts_of(trainer_on(both, tmp_path))["data"]]
    assert [(name, count) for name, _, count in found] == [("pictures", 4), ("other", 5), ("pictures", 8)]
    assert [weight for _, weight, _ in found] == pytest.approx([5 / 18, 10 / 18, 3 / 18])
    assert (
        facts_of(trainer_on(both, tmp_path))["augmentation"] == facts_of(trainer_on(whole, tmp_path))["augmentation"]
    )


def test_settings_that_json_has_no_word_for(tmp_path, data):
    trainer = make_trainer(tmp_path / "run", data, max_grad_norm=float("inf"))
    trainer.args.optim_args = {"file": tmp_path / "optim.json", "rates": (1, float("nan")), "kind": Kind.A}
    changed = facts_of(trainer)["hyperparameters"]["changed"]
    assert changed["max_grad_norm"] == "inf"
    assert changed["optim_args"] == {"file": "optim.json", "rates": [1, "nan"], "kind": "a"}


def test_accumulated_batches_stand_apart(tmp_path, data):
    facts = facts_of(make_trainer(tmp_path / "run", data, gradient_accumulation_steps=2))
    assert (facts["batch_size"], facts["accumulated_batches"]) == (4, 2)


def test_skipped_pictures_are_those_of_all_processes(tmp_path, data, monkeypatch):
    """Rows 1 and 2 here, 2 and 7 there: three pictures; row 5 was found since."""
    trainer = make_trainer(tmp_path / "run", data)
    here, there = {1: ("1.png", "empty"), 2: ("2.png", "empty")}, {2: ("2.png", "empty"), 7: ("7.png", "empty")}
    trainer.skipped_images.update(here)
    assert facts_of(trainer)["skipped_pictures"] == 2
    monkeypatch.setattr("hf_clip.training.skipped.gather_objects", lambda own: [own, there])
    trainer.skipped_images.in_all_processes()
    monkeypatch.setattr("hf_clip.training.skipped.gather_objects", None)  # one process alone must not ask
    assert facts_of(trainer)["skipped_pictures"] == 3
    trainer.skipped_images[5] = ("5.png", "empty")
    assert facts_of(trainer)["skipped_pictures"] == 4


def test_emissions_are_measured_by_the_process_that_saves(monkeypatch):
    tracker = types.SimpleNamespace(start=None, stop=None)  # called, either fails
    monkeypatch.setitem(sys.modules, "codecarbon", types.SimpleNamespace(EmissionsTracker=lambda **_: tracker))
    callback, args = MeasureEmissions(), types.SimpleNamespace(should_save=False)
    callback.on_train_begin(args, None, None)
    callback.on_train_end(args, None, None)
    assert callback.measured is None
