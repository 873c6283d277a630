"""A whole run: the folder it leaves, and the folders it refuses."""

import json

import pytest
from conftest import tiny_model, write_pictures
from training_runs import PressCtrlC, make_processor
from transformers import AutoModel, AutoProcessor

from hf_clip import HFClipTrainingArguments
from hf_clip.data.sources import open_source
from hf_clip.errors import InputError
from hf_clip.training.run import Interrupted, check_output_folder, train


def arguments(folder, **changes):
    settings = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "disable_tqdm": True, "use_cpu": True}
    return HFClipTrainingArguments(output_dir=str(folder), **(settings | changes))


def small_run(tmp_path, data, *, callbacks=None, **changes):
    source = open_source(data)
    args = arguments(tmp_path / "run", eval_strategy="epoch", **changes)
    return train(
        tiny_model(), make_processor(tmp_path / "tokenizer"), args, source, source,
        towers=(str(tmp_path / "resnet"), "google-bert/bert-base-uncased"), credit="Pictures: us", callbacks=callbacks,
    )  # fmt: skip


def test_the_run_folder_holds_all_that_is_needed(tmp_path):
    data = write_pictures(tmp_path / "pictures")
    (data / "1.png").write_bytes(b"")
    metrics = small_run(tmp_path, data)
    run = tmp_path / "run"
    files = {str(file.relative_to(run)) for file in run.rglob("*") if file.is_file()}
    files = {name for name in files if not name.startswith("checkpoint-2/")}  # the Trainer's last one
    code = {f"{part}_hf_clip.py" for part in ("configuration", "loss", "modeling", "processing")}
    expected = {
        "config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
        "README.md", "metrics.json", "arguments.json", "training_args.bin",
        "pictures/training_curve.png", "pictures/retrieval.png",
    }  # fmt: skip
    assert files == code | expected
    assert json.loads((run / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    assert metrics["images"] == 7
    assert metrics["skipped_images"] == 1
    assert metrics["skipped_training_images"] == [[1, "1.png", "the file is empty"]]
    assert json.loads((run / "arguments.json").read_text())["per_device_train_batch_size"] == 4
    readme = (run / "README.md").read_text()
    assert f"{metrics['image_retrieval_recall@1']:.3f}" in readme
    assert "Pictures: us" in readme
    assert str(tmp_path) not in readme
    AutoModel.from_pretrained(run)
    AutoProcessor.from_pretrained(run)


def test_fewer_pairs_than_a_batch_still_train(tmp_path):
    metrics = small_run(tmp_path, write_pictures(tmp_path / "pictures", count=3))
    assert metrics["images"] == 3


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
