"""Features of frozen towers on disk: the same training, each tower run once, and nothing stale or damaged used."""

import errno
import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import SAME, tiny_model, tiny_text_config, tiny_vision_config, write_pictures
from processes import run as run_processes
from processes import train_heads
from ready_processes import ready_context
from torch.utils.data import ConcatDataset, Subset
from training_runs import cached_trainer as cached
from training_runs import make_processor, make_trainer

from hf_clip import HFClipTrainingArguments
from hf_clip.core.errors import InputError
from hf_clip.data.augmentation import Augmentation
from hf_clip.data.dataset import TrainingPairs
from hf_clip.data.mixture import MixedPairs
from hf_clip.data.sources import open_source
from hf_clip.data.streaming import StreamedPairs
from hf_clip.training.feature_cache import UseFrozenFeatures

SEGMENTS = "vision-*/segments/rows-*"
BOTH = {"freeze_text": True, "freeze_vision": True}


@pytest.fixture
def data(tmp_path):
    """12 rows of three captions; picture 7 is picture 1, and 3 cannot be read. 34 captions are distinct, and 33 where
    they are cut after 16 tokens: "very very yellow d" and "very very yellow l" are one then."""
    folder = write_pictures(tmp_path / "pictures", count=12, captions_each=3)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    rows[5]["caption"][1:] = rows[2]["caption"][:2]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "3.png").write_bytes(b"")
    (folder / "7.png").write_bytes((folder / "1.png").read_bytes())
    return folder


def logged(trainer, *names):
    return [[entry[name] for name in names] for entry in trainer.state.log_history if "loss" in entry]


def vectors(root: Path) -> dict[str, bytes]:
    files = [*root.rglob("*.npy"), *root.rglob("*.parquet")]
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


@pytest.mark.parametrize("changes", [
    {"freeze_text": True, "augmentation": Augmentation(crop_scale=0.5, color_jitter=0.3)},
    {"freeze_vision": True},
    BOTH,
    BOTH | {"gradient_accumulation_steps": 2, "dataloader_num_workers": 1, "dataloader_persistent_workers": True},
    BOTH | {"train_sampling_strategy": "group_by_length", "per_device_train_batch_size": 5},
])  # fmt: skip
def test_training_is_that_without_a_cache(changes, tmp_path, data):
    settings = {"num_train_epochs": 3, "augmentation": Augmentation(crop_scale=1)} | changes
    plain = make_trainer(tmp_path / "plain", data, **settings)
    frozen = {side: settings.get(side, False) for side in BOTH}
    trainer, _ = cached(tmp_path, data, **(settings | frozen))
    before = {name: value.clone() for name, value in plain.model.state_dict().items()}
    for each in (plain, trainer):
        each.train()
    assert trainer.skipped_images == plain.skipped_images == {3: ("3.png", "the file is empty")}
    torch.testing.assert_close(logged(trainer, "loss"), logged(plain, "loss"), rtol=1e-4, atol=1e-4)
    cut = [entry["captions_cut"] for entry in plain.state.log_history if "captions_cut" in entry]
    assert [entry["captions_cut"] for entry in trainer.state.log_history if "captions_cut" in entry] == cut != [0] * 9
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(trainer.model.state_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name)
    assert not torch.equal(before["visual_projection.weight"], plain.model.visual_projection.weight)


def test_torchs_wrappers_draw_what_they_draw_without_a_cache(tmp_path, data):
    """Two sources, one of them twice, a broken picture and a part of a mixture."""
    other = write_pictures(tmp_path / "other", count=6)
    losses = []
    for cache in (False, True):
        trainer, seen = cached(
            tmp_path, data, str(cache), num_train_epochs=3,
            **({} if cache else {"cache_frozen_features": False, "feature_cache_dir": None}),
        )  # fmt: skip
        one = trainer.train_dataset
        two = make_trainer(tmp_path / "other run", other, augmentation=Augmentation(crop_scale=1)).train_dataset
        parts = [one, Subset(two, [4, 1]), Subset(one, [2, 3, 5]), Subset(MixedPairs([one, two], [1, 2]), range(9))]
        trainer.train_dataset = ConcatDataset(parts)
        trainer.train()
        losses.append(logged(trainer, "loss", "captions_cut"))
        assert {name for name, _ in trainer.skipped_images.values()} == {f"{data}: row 4: 3.png"}
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)
    assert (seen["captions"], seen["pictures"]) == (33 + 6, 10 + 6)
    assert one.text_features is two.image_features is None


def test_duplicates_are_masked_and_a_mixture_draws_what_it_draws_without_a_cache(tmp_path, data):
    other = write_pictures(tmp_path / "other", count=6)
    losses = []
    for cache in (False, True):
        trainer, seen = cached(
            tmp_path, data, str(cache), max_steps=6, **({} if cache else {"cache_frozen_features": False,
            "feature_cache_dir": None}),
        )  # fmt: skip
        one = trainer.train_dataset
        two = TrainingPairs(open_source(other), one.image_processor, Augmentation(crop_scale=1), seed=3)
        trainer.train_dataset = MixedPairs([one, two], [2, 1])
        trainer.train()
        losses.append(logged(trainer, "loss"))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-6)
    # Of the first source 11 pictures are distinct, and one of them cannot be read.
    assert seen == {"captions": 33 + 6, "pictures": 10 + 6}


def test_captions_that_read_the_same_are_one_and_a_cut_is_that_of_the_caption(tmp_path):
    """White space, case, Unicode forms; the last two differ beyond the cut, after fourteen letters."""
    data = write_pictures(tmp_path / "pictures", count=18)
    captions = [*SAME, *(f"{same} blue green" for same in SAME), "abcdefghijklmn", "abcdefghijklmnop"]
    rows = [{"file_name": f"{i}.png", "caption": caption} for i, caption in enumerate(captions)]
    (data / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 9}
    plain, _ = cached(tmp_path, data, "plain", cache_frozen_features=False, feature_cache_dir=None, **settings)
    trainer, seen = cached(tmp_path, data, **settings)
    for each in (plain, trainer):
        each.train()
    assert seen["captions"] == 3
    folder = next((tmp_path / "cache").glob("text-*"))
    assert np.load(folder / "cut.npy").tolist() == [False] * 17 + [True]
    # The same pairs are masked: eight captions of nine.
    torch.testing.assert_close(logged(trainer, "loss"), logged(plain, "loss"), rtol=1e-5, atol=1e-6)
    cut = [[entry["captions_cut"] for entry in each.state.log_history if "captions_cut" in entry]
           for each in (plain, trainer)]  # fmt: skip
    assert cut[0] == cut[1]
    assert sum(cut[0]) > 0


def test_each_distinct_caption_and_picture_is_embedded_once_and_never_again(tmp_path, data):
    weights = []
    for name, expected in (("first", {"captions": 33, "pictures": 10}), ("second", {"captions": 0, "pictures": 0})):
        trainer, seen = cached(tmp_path, data, name, num_train_epochs=4)
        trainer.train()
        assert seen == expected
        weights.append(trainer.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert {folder.name.split("-")[0] for folder in (tmp_path / "cache").iterdir()} == {"text", "vision"}


def test_no_file_of_a_picture_is_needed_any_more(tmp_path, data, monkeypatch):
    cached(tmp_path, data)[0].train()
    trainer, _ = cached(tmp_path, data, "again", dataloader_num_workers=0)
    monkeypatch.setattr("hf_clip.data.draws.read_image", None)
    trainer.train()
    assert trainer.skipped_images == {3: ("3.png", "the file is empty")}


def test_names_of_classes_are_captions(tmp_path):
    for name in ("emu", "cow"):
        write_pictures(tmp_path / "classes" / name, count=4)
        (tmp_path / "classes" / name / "metadata.jsonl").unlink()
    trainer, seen = cached(tmp_path, tmp_path / "classes")
    trainer.train()
    assert seen == {"captions": 2, "pictures": 4}


def test_a_resumed_run_ends_in_the_same_bits(tmp_path, data, one_thread):
    settings = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 4}
    whole, _ = cached(tmp_path, data, "whole", **settings)
    whole.train()
    resumed, seen = cached(tmp_path, data, "resumed", model=tiny_model(seed=5), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert seen == {"captions": 0, "pictures": 0}, "the towers are those of the checkpoint"
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_a_pass_that_breaks_off_goes_on_where_it_was(tmp_path, data, one_thread):
    cached(tmp_path, data, feature_cache_dir=str(tmp_path / "uncut"))[0].train()
    trainer, seen = cached(tmp_path, data)
    trainer.model.vision_model.register_forward_pre_hook(lambda module, args: 1 / (10 - seen["pictures"]) and None)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    again, more = cached(tmp_path, data, "again")
    again.train()
    assert more == {"captions": 0, "pictures": 3}, "the last of three segments"
    assert vectors(tmp_path / "cache") == vectors(tmp_path / "uncut")


def test_a_killed_process_is_gone_on_from(tmp_path, one_thread):
    data = write_pictures(tmp_path / "pictures", count=200)
    process = ready_context().Process(target=train_heads, args=(0, 1, str(tmp_path), str(data), 1))
    process.start()
    root, deadline = tmp_path / "cache", time.monotonic() + 120
    while process.is_alive() and len(list(root.glob(SEGMENTS))) < 3 and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    left = {file: file.stat().st_mtime_ns for file in root.glob(SEGMENTS)}
    assert 3 <= len(left) < 200
    half = next(iter(left)).with_name(".staging") / "rows-000000199-000000200"
    half.mkdir(parents=True, exist_ok=True)
    (half / "vectors.npy").write_bytes(b"half")
    trainer, seen = cached(tmp_path, data, segment_size=1)
    trainer.train()
    assert seen == {"captions": 0, "pictures": 200 - len(left)}
    assert {file: file.stat().st_mtime_ns for file in left} == left
    assert not half.exists()
    cached(tmp_path, data, "uncut", segment_size=1, feature_cache_dir=str(tmp_path / "uncut"))[0].train()
    assert vectors(root) == vectors(tmp_path / "uncut")


def other_weights(data):
    model = tiny_model()
    with torch.no_grad():
        for tower in (model.text_model, model.vision_model):
            next(tower.parameters()).view(-1)[-1] += 1e-3
    return {"model": model}


def exchanged_pictures(data):
    first, last = ((data / name).read_bytes() for name in ("0.png", "2.png"))
    (data / "0.png").write_bytes(last)
    (data / "2.png").write_bytes(first)
    return {}


def other_captions(data):
    text = (data / "metadata.jsonl").read_text()
    (data / "metadata.jsonl").write_text(text.replace("very red a", "very rad a", 1))
    return {}


def pooling_and_dtype(data):
    return {"model": tiny_model(text_pooling="mean").bfloat16()}


@pytest.mark.parametrize(("change", "expected"), [
    (other_weights, {"captions": 33, "pictures": 10}),
    (pooling_and_dtype, {"captions": 33, "pictures": 10}),
    (exchanged_pictures, {"captions": 0, "pictures": 10}),
    (other_captions, {"captions": 33, "pictures": 0}),
    (lambda data: {"max_length": 9}, {"captions": 20, "pictures": 0}),
    (lambda data: {"padding": "max_length"}, {"captions": 33, "pictures": 0}),
    (lambda data: {"augmentation": Augmentation(crop_scale=1, reduced_decode=False)}, {"captions": 0, "pictures": 10}),
    (lambda data: {"do_lower_case": False}, {"captions": 33, "pictures": 0}),
    (lambda data: {"image_mean": [0.0, 0.0, 0.0]}, {"captions": 0, "pictures": 10}),
])  # fmt: skip
def test_what_it_depends_on_makes_another_cache(change, expected, tmp_path, data):
    cached(tmp_path, data)[0].train()
    before = vectors(tmp_path / "cache")
    changes = change(data)
    collator = {name: changes.pop(name) for name in ("max_length", "padding") if name in changes}
    lower_case, mean = changes.pop("do_lower_case", True), changes.pop("image_mean", None)
    trainer, seen = cached(tmp_path, data, "other", **changes)
    for name, value in collator.items():
        setattr(trainer.data_collator, name, value)
    if not lower_case:
        trainer.data_collator.tokenizer.backend_tokenizer.normalizer = None
    if mean:
        trainer.train_dataset.image_processor.image_mean = mean
    trainer.train()
    assert seen == expected
    assert before.items() <= vectors(tmp_path / "cache").items(), "the other cache is left alone"


def flip(file):
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def change_an_id(file):
    content = bytearray(file.read_bytes())
    content[content.index(pq.read_table(file)["id"][2].as_py().to_bytes(8, "little", signed=True))] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(("name", "damage"), [
    ("vectors.npy", flip),
    ("vectors.npy", lambda file: file.write_bytes(file.read_bytes()[:-40])),
    ("vectors.npy", Path.unlink),
    ("rows.parquet", flip),
    ("rows.parquet", change_an_id),
    ("rows.parquet", Path.unlink),
])  # fmt: skip
def test_a_damaged_segment_is_named_and_embedded_again(name, damage, tmp_path, data, caplog, one_thread):
    cached(tmp_path, data)[0].train()
    good = vectors(tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob(f"vision-*/segments/rows-000000004-000000008/{name}")
    damage(file)
    trainer, seen = cached(tmp_path, data, "again")
    with caplog.at_level("WARNING", logger="hf_clip"):
        trainer.train()
    assert seen == {"captions": 0, "pictures": 4}
    assert vectors(tmp_path / "cache") == good
    lines = [line for line in caplog.messages if "embedded again" in line]
    assert lines == [
        f"{file.parents[2]}: 1 of 3 segments damaged or missing (the first: rows-000000004-000000008): embedded again"
    ]


@pytest.mark.parametrize(("name", "damage"), [
    ("starts.npy", flip), ("positions.npy", Path.unlink), ("firsts.npy", lambda file: file.write_bytes(b"")),
    ("manifest.json", flip), ("manifest.json", lambda file: file.write_text(file.read_text().replace("4", "5"))),
])  # fmt: skip
def test_a_damaged_index_is_mended(name, damage, tmp_path, data):
    cached(tmp_path, data)[0].train()
    good = vectors(tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob(f"vision-*/{name}")
    whole = file.read_bytes()
    damage(file)
    trainer, seen = cached(tmp_path, data, "again")
    trainer.train()
    assert seen == {"captions": 0, "pictures": 0}
    assert vectors(tmp_path / "cache") == good
    assert file.read_bytes() == whole


def test_two_processes_share_the_filling_and_train_as_one(tmp_path, data):
    run_processes(train_heads, 2, str(tmp_path), str(data), 2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, distinct in {"captions": 33, "pictures": 10}.items():
        assert first["seen"][name] + second["seen"][name] == distinct
        assert min(first["seen"][name], second["seen"][name]) >= 4
    one, _ = cached(tmp_path, data, "one", num_train_epochs=2, learning_rate=1e-2)
    one.train()
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(first["weights"][name], value, rtol=1e-4, atol=1e-6, msg=name)
        assert torch.equal(first["weights"][name], second["weights"][name])


def test_a_full_disk_is_one_line(tmp_path, data, monkeypatch):
    def full(rows, file, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(
        InputError, match=r"rows-\d+-000000004 could not be written to .*text-.*\(.*No space left .*\): make room"
    ):
        cached(tmp_path, data)[0].train()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be made: File exists: give another feature_cache_dir"):
        cached(tmp_path, data, feature_cache_dir=str(tmp_path / "file"))[0].train()


def test_features_that_are_not_finite_are_not_kept(tmp_path, data):
    model = tiny_model()
    with torch.no_grad():
        next(model.text_model.encoder.parameters()).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="the frozen text tower gave features that are not finite"):
        cached(tmp_path, data, model=model)[0].train()
    assert not list((tmp_path / "cache").glob("*/segments/*"))


@pytest.mark.parametrize(("settings", "message"), [
    ({"freeze_text": False, "freeze_vision": False},
     "cache_frozen_features needs a frozen tower: set freeze_text, freeze_vision or both"),
    ({"augmentation": Augmentation(flip=0.5, reduced_decode=False)}, "set crop_scale 1, flip 0, or leave it out"),
])  # fmt: skip
def test_settings_that_cannot_be(settings, message, tmp_path, data):
    with pytest.raises(InputError, match=message):
        cached(tmp_path, data, **settings)


def test_a_tower_that_is_frozen_by_hand_counts(tmp_path, data):
    model = tiny_model()
    model.text_model.requires_grad_(False)
    trainer, seen = cached(tmp_path, data, model=model, freeze_text=False, freeze_vision=False)
    trainer.train()
    assert seen["captions"] == 33
    assert seen["pictures"] == 12


def test_a_stream_has_no_rows_to_look_up(tmp_path, data):
    trainer, _ = cached(tmp_path, data, max_steps=1)
    processor = make_processor(tmp_path / "tokenizer")
    source = open_source(data, streaming=True)
    trainer.train_dataset = StreamedPairs(source, processor.image_processor, Augmentation(crop_scale=1))
    with pytest.raises(
        InputError, match="looks rows up, which a StreamedPairs has not: do not stream, or leave it out"
    ):
        trainer.train()


def test_a_folder_without_the_cache_is_a_slip(tmp_path):
    with pytest.raises(ValueError, match="feature_cache_dir is for cache_frozen_features"):
        HFClipTrainingArguments(output_dir=str(tmp_path), feature_cache_dir="features")


def test_dropout_of_a_frozen_tower_is_off_and_the_default_folder_is_in_hf_home(tmp_path, data, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    model = tiny_model(text_config=tiny_text_config(hidden_dropout_prob=0.5), vision_config=tiny_vision_config())
    trainer, _ = cached(tmp_path, data, model=model, feature_cache_dir=None)
    callback = next(each for each in trainer.callback_handler.callbacks if isinstance(each, UseFrozenFeatures))
    callback.on_train_begin(trainer.args, trainer.state, trainer.control)
    read = trainer.data_collator.tokenize(trainer.train_dataset.source.captions(4))
    expected = trainer.model.eval().pool_text(**read.tokens)
    features = trainer.train_dataset.text_features
    torch.testing.assert_close(features.take(features.of_row(4)), expected)
    assert features.folder.parent == tmp_path / "home" / "hf_clip" / "features"


def test_after_training_the_data_set_is_as_it_was(tmp_path, data):
    """Another trainer, of towers that are not frozen, may be given it."""
    trainer, _ = cached(tmp_path, data)
    trainer.train()
    assert {"captions", "pixel_values"} <= set(trainer.train_dataset[0])
