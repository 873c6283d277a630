"""A whole run: the folder it leaves, and the folders it refuses."""

import json

import datasets
import pytest
import torch
import yaml
from conftest import CODE, tiny_model, write_pictures
from safetensors.torch import load_file
from torch.utils.data import Subset
from training_runs import PressCtrlC, make_processor
from transformers import AutoModel, AutoProcessor, TrainerCallback

from hf_clip import HFClipTrainer, HFClipTrainingArguments
from hf_clip.core.errors import InputError, NotFinite
from hf_clip.data.dataset import CaptionedImages
from hf_clip.data.images import skipped_line
from hf_clip.data.sources import open_source
from hf_clip.data.split import split_by_image
from hf_clip.training.facts import Origin
from hf_clip.training.run import Interrupted, check_output_folder, train


def arguments(folder, **changes):
    settings = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "disable_tqdm": True, "use_cpu": True}
    return HFClipTrainingArguments(output_dir=str(folder), **(settings | changes))


def run(folder, source, evaluated=None, *, settings=None, model=None, processor=None, origin=None, **changes):
    """Trains the tiny model on a source into a folder."""
    others = {name: changes.pop(name) for name in ("callbacks", "data_collator") if name in changes}
    trainer = HFClipTrainer(
        model or tiny_model(),
        arguments(folder, **changes),
        train_dataset=source,
        eval_dataset=evaluated,
        processing_class=processor or make_processor(folder.parent / "tokenizer"),
        **others,
        origin=origin or Origin(str(folder.parent / "resnet"), "google-bert/bert-base-uncased", credit="Pictures: us"),
    )
    return train(trainer, settings)


def small_run(tmp_path, data, **changes):
    return run(tmp_path / "run", open_source(data), open_source(data), eval_strategy="epoch", **changes)


def test_the_run_folder_holds_all_that_is_needed(tmp_path):
    data = write_pictures(tmp_path / "pictures")
    (data / "1.png").write_bytes(b"")
    metrics = small_run(tmp_path, data)
    run = tmp_path / "run"
    files = {str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()}
    files = {name for name in files if not name.startswith("checkpoint-2/")}  # the Trainer's last one
    expected = {
        "config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
        "README.md", "metrics.json", "arguments.json", "training.json", "training_args.bin",
        "pictures/training_curve.png", "pictures/retrieval.png", "evaluation/results.json", "evaluation/report.md",
        "evaluation/pictures/recall_retrieval.png", "evaluation/pictures/similarities_retrieval.png",
    }  # fmt: skip
    assert files == CODE | expected
    assert json.loads((run / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    assert metrics["images"] == 7
    assert metrics["skipped_images"] == 1
    assert metrics["skipped_training_images"] == [(1, "1.png", "the file is empty")]
    assert json.loads((run / "arguments.json").read_text())["per_device_train_batch_size"] == 4
    readme = (run / "README.md").read_text()
    assert f"{metrics['image_retrieval_recall@1']:.3f}" in readme
    assert "Pictures: us" in readme
    assert str(tmp_path) not in readme
    AutoModel.from_pretrained(run)
    AutoProcessor.from_pretrained(run)


def test_fewer_pairs_than_a_batch_still_train_and_what_was_given_stays_as_it_was(tmp_path):
    source = open_source(write_pictures(tmp_path / "pictures", count=3))
    processor = make_processor(tmp_path / "tokenizer")
    processor.max_text_length = 16
    metrics = run(tmp_path / "run", source, source, processor=processor)
    assert metrics["images"] == 3
    assert (processor.max_text_length, processor.tokenizer.model_max_length) == (16, 64)
    saved = AutoProcessor.from_pretrained(tmp_path / "run")
    assert (saved.max_text_length, saved.tokenizer.model_max_length) == (16, 16)


def test_after_ctrl_c_it_says_how_to_go_on_and_does(tmp_path, pictures):
    with pytest.raises(Interrupted, match=r"after step 2; go on with --resume_from_checkpoint \S+/checkpoint-2 "):
        small_run(tmp_path, pictures, callbacks=[PressCtrlC(1)], num_train_epochs=3)
    assert not (tmp_path / "run" / "config.json").exists()
    metrics = small_run(tmp_path, pictures, num_train_epochs=3, resume_from_checkpoint="true")
    assert metrics["images"] == 8
    state = json.loads((tmp_path / "run" / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["global_step"] == 2


@pytest.mark.parametrize("left", ["config.json", "checkpoint-3/model.safetensors"])
def test_a_folder_with_a_run_is_refused(left, tmp_path):
    file = tmp_path / "run" / left
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(InputError, match=r"already holds a run: .*another --output_dir, or --resume_from_checkpoint"):
        check_output_folder(arguments(tmp_path / "run"))
    assert file.read_text() == "mine"


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty: give another --output_dir"):
        check_output_folder(arguments(tmp_path))
    with pytest.raises(InputError, match=r"cannot be made: .*README.md is no folder"):
        check_output_folder(arguments(tmp_path / "README.md" / "run"))
    assert (tmp_path / "README.md").read_text() == "mine"


def test_there_must_be_a_checkpoint_to_go_on_from(tmp_path):
    for asked in ("true", str(tmp_path / "nowhere")):
        with pytest.raises(InputError, match="no whole checkpoint at"):
            check_output_folder(arguments(tmp_path / "run", resume_from_checkpoint=asked))
    assert check_output_folder(arguments(tmp_path / "run", resume_from_checkpoint="false")) is None


def test_a_file_is_no_output_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file: give a folder"):
        check_output_folder(arguments(tmp_path / "file"))


def test_a_stream_trains_for_max_steps_and_resumes_where_it_was(tmp_path):
    """Through two workers and into the second epoch of 8 pictures; resumed, it ends with the same weights."""
    data = write_pictures(tmp_path / "pictures", captions_each=2)
    source, settings = (
        open_source(data, streaming=True),
        {"max_steps": 4, "save_steps": 2, "dataloader_num_workers": 2},
    )

    def trained(folder, **changes):
        run(tmp_path / folder, source, **settings, **changes)
        return AutoModel.from_pretrained(tmp_path / folder).state_dict()

    whole = trained("whole", save_strategy="steps")
    resumed = trained("resumed", resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


# ---- what may go wrong ----------------------------------------------------------------------------------------------


def test_two_runs_into_one_folder_at_once_are_refused(tmp_path, pictures):
    class SecondRun(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            with pytest.raises(InputError, match=r"another run is writing into .*run: wait for it"):
                small_run(tmp_path, pictures, resume_from_checkpoint="true")
            self.refused = True

    second = SecondRun()
    small_run(tmp_path, pictures, num_train_epochs=2, save_strategy="steps", save_steps=1, max_steps=1)
    small_run(
        tmp_path, pictures, num_train_epochs=2, resume_from_checkpoint="true", callbacks=[second]
    )  # a run that has ended holds nothing
    assert second.refused
    assert not (tmp_path / "run" / ".lock").exists()


def test_strict_stops_at_a_broken_picture_and_keeps_what_was_trained(tmp_path):
    data = write_pictures(tmp_path / "pictures", count=8)
    good = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    (data / "broken.png").write_bytes(b"no picture")
    rows = [*good, {"file_name": "broken.png", "caption": "broken"}]
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {"strict": True, "train_sampling_strategy": "sequential", "per_device_train_batch_size": 3}
    with pytest.raises(
        InputError, match=r"row 9: \S*broken.png: not a whole picture.*trained so far is in \S*point-2"
    ):
        small_run(tmp_path, data, **settings)
    state = json.loads((tmp_path / "run" / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["global_step"] == 2


def test_settings_are_kept_from_the_start(tmp_path, pictures):
    settings = {"text_model": "中文", "crop_scale": 0.5, "train_data": ["a", "b"]}

    class Look(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            assert yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text()) == settings

    small_run(tmp_path, pictures, settings=settings, callbacks=[Look()])
    assert yaml.safe_load((tmp_path / "run" / "settings.yaml").read_text()) == settings


def test_the_readme_of_a_sigmoid_model_says_how_its_scores_are_to_be_read(tmp_path, pictures):
    processor = make_processor(tmp_path / "tokenizer")
    processor.max_text_length, processor.text_padding = 12, "max_length"
    run(tmp_path / "run", open_source(pictures), model=tiny_model(loss="sigmoid"), processor=processor)
    readme = (tmp_path / "run" / "README.md").read_text()
    assert "logits_per_image.sigmoid()" in readme
    assert '{"padding": "max_length", "truncation": True, "max_length": 12}' in readme
    assert AutoProcessor.from_pretrained(tmp_path / "run")(text=["a"])["input_ids"][0][3:] == [0] * 9


def test_a_checkpoint_is_not_gone_on_from_into_another_run_s_folder(tmp_path, pictures):
    small_run(tmp_path, pictures, save_strategy="steps", save_steps=1)
    checkpoint = str(tmp_path / "run" / "checkpoint-1")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("mine")
    with pytest.raises(InputError, match="other already holds a run"):
        check_output_folder(arguments(tmp_path / "other", resume_from_checkpoint=checkpoint))
    assert check_output_folder(arguments(tmp_path / "new", resume_from_checkpoint=checkpoint)) == checkpoint


def test_a_checkpoint_with_half_its_weights_is_named(tmp_path, pictures):
    small_run(tmp_path, pictures, save_strategy="steps", save_steps=1)
    weights = tmp_path / "run" / "checkpoint-1" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"checkpoint \S*checkpoint-1 cannot be gone on from .* give an older one"):
        small_run(tmp_path, pictures, resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))


def test_a_skipped_picture_of_a_part_is_named_by_its_row_in_the_whole(tmp_path):
    data = write_pictures(tmp_path / "pictures", count=12)
    for file in data.glob("*.png"):
        file.write_bytes(file.read_bytes() if file.name != "9.png" else b"")
    for part in split_by_image(open_source(data), 0.5):
        items = [CaptionedImages(part, make_processor(tmp_path / "t").image_processor)[i] for i in range(len(part))]
        skipped = [entry for item in items for entry in item["skipped"]]
        assert [row for row, _, _ in skipped] in ([], [9])
        if skipped:
            assert skipped_line(*skipped[0]) == "row 10: 9.png: the file is empty"
            return
    raise AssertionError("nothing was skipped")


class Overflow(TrainerCallback):
    """After a step, finite weights that make infinite activations, and with them BatchNorm's statistics."""

    def __init__(self, step: int):
        self.step = step

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        if state.global_step + 1 == self.step:
            with torch.no_grad():
                next(model.vision_model.parameters()).fill_(1e38)


def test_a_run_that_overflows_keeps_its_last_checkpoint_as_it_was(tmp_path):
    data = write_pictures(tmp_path / "pictures")
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}
    with pytest.raises(NotFinite, match=r"step 5: the image tower's .* the last checkpoint is .*checkpoint-4$"):
        run(tmp_path / "run", open_source(data), callbacks=[Overflow(4)], **settings)
    weights = load_file(tmp_path / "run" / "checkpoint-4" / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


# ---- a run that has ended is whole --------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyError("models"), OSError(28, "No space left on device"), InputError("so it is")])
@pytest.mark.parametrize("step", ["run._write_results", "run._draw", "hub.write_card", "contrastive.pair_facts"])
def test_a_report_that_fails_costs_no_run(step, error, tmp_path, pictures, monkeypatch, caplog):
    def fail(*args, **settings):
        raise error

    monkeypatch.setattr(f"hf_clip.training.{step}", fail)
    metrics = small_run(tmp_path, pictures, save_strategy="no")
    ours = isinstance(error, KeyError)  # a fault of the program: nothing is lost, and nothing is hidden
    said = ", by a fault of the program; the run is whole" if ours else ", and the run is whole without"
    assert caplog.text.count(f"could not be written{said}") == 1
    assert ("Traceback" in caplog.text) == ours
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["images"] == metrics["images"] == 8
    assert (tmp_path / "run" / "arguments.json").is_file()
    assert AutoModel.from_pretrained(tmp_path / "run")


def results_of(tmp_path, folder=""):
    return json.loads((tmp_path / "run" / "evaluation" / folder / "results.json").read_text())["data"]


def test_what_was_held_out_is_not_called_all_rows(tmp_path, pictures):
    kept, held_out = split_by_image(open_source(pictures), 0.5)
    origin = Origin(eval_data="pictures of us")
    run(tmp_path / "run", kept, held_out, origin=origin, save_strategy="no")
    assert (results_of(tmp_path)["name"], results_of(tmp_path)["split"]) == ("pictures of us", "held out")


@pytest.mark.parametrize("kind", ["Subset", "Dataset"])
def test_evaluation_sets_without_a_source_have_figures_and_no_report(kind, tmp_path, pictures, caplog):
    source, processor = open_source(pictures), make_processor(tmp_path / "tokenizer")
    if kind == "Subset":
        sets = {"part": Subset(CaptionedImages(source, processor.image_processor), [1, 2, 3]), "all": source}
        metrics = run(tmp_path / "run", source, sets, save_strategy="no", processor=processor)
        assert (metrics["part_images"], metrics["all_images"]) == (3, 8)
        assert results_of(tmp_path, "all")["name"] == "all: pictures"
        assert "no results.json and no images of eval_dataset 'part', a Subset" in caplog.text
    else:
        rows = datasets.load_dataset("imagefolder", data_dir=str(pictures))["train"].select(range(4))
        metrics = run(
            tmp_path / "run", rows, rows, save_strategy="no", processor=processor,
            data_collator=lambda items: dict(processor(
                images=[item["image"] for item in items], text=[item["caption"] for item in items], return_tensors="pt"
            )),
        )  # fmt: skip
        assert metrics["images"] == 4
        assert "no results.json and no images of eval_dataset, a Dataset" in caplog.text
    assert "Traceback" not in caplog.text
    left = {file.relative_to(tmp_path / "run").parts[0] for file in (tmp_path / "run").rglob("*")}
    assert left >= {"metrics.json", "README.md", "pictures"}
    assert (tmp_path / "run" / "evaluation").exists() == (kind == "Subset")


def test_several_evaluation_sets_are_told_apart(tmp_path, pictures):
    source = open_source(pictures)
    run(tmp_path / "run", source, {"birds": source, "cats": source}, save_strategy="no")
    names = [results_of(tmp_path, name)["name"] for name in ("birds", "cats")]
    assert names == ["birds: pictures", "cats: pictures"]
    assert results_of(tmp_path, "cats")["split"] == "all rows"
