"""The folder that goes up: all that it should hold, nothing that it should not, and the source as it was."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
from cards import EXPORT, changed, put
from conftest import CODE, COLORS, tiny_inputs, tiny_model
from huggingface_hub.utils.sha import git_hash
from PIL import Image
from transformers import AutoModel, AutoProcessor

from hf_clip import HFClipModel, HFClipProcessor, HFClipTextModelWithProjection
from hf_clip.cli.main import main
from hf_clip.core.digests import weights_digest
from hf_clip.core.errors import InputError
from hf_clip.core.public import refuse_secrets
from hf_clip.core.training_record import DataRecord, SettingsRecord, TrainingRecord
from hf_clip.publishing import staging
from hf_clip.publishing.card.facts import CardDetails
from hf_clip.publishing.saved_model import SavedModel
from hf_clip.publishing.staging import PublishOptions, stage

TOKEN = "hf_" + "Planted" * 5


def content(**settings):
    return PublishOptions(CardDetails("user/name"), run_examples=False, **settings)


def snapshot(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def texts(folder) -> str:
    return "\n".join(file.read_text(errors="replace") for file in folder.rglob("*") if file.is_file())


@pytest.fixture
def evaluated(model_folder, pictures, tmp_path):
    """What `hf-clip evaluate` writes of the model, with grids of pictures."""
    folder = tmp_path / "test set"
    arguments = ["--model", str(model_folder), "--data", str(pictures), "--output", str(folder), "--resamples", "50"]
    assert main(["evaluate", *arguments]) == 0
    return folder


def test_what_is_staged_opens_with_the_same_logits(model_folder, tmp_path):
    (model_folder / "training_args.bin").write_bytes(TOKEN.encode())
    (model_folder / "settings.yaml").write_text(f"output_dir: {model_folder}")
    (model_folder / "checkpoint-3").mkdir()
    before = snapshot(model_folder)
    stage(SavedModel(model_folder), tmp_path / "staged", content())
    assert snapshot(model_folder) == before
    files = set(snapshot(tmp_path / "staged"))
    sentence_transformers = {"modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"}
    saved = {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert files == CODE | sentence_transformers | saved | {"README.md", "publication.json"}
    listed = json.loads((tmp_path / "staged" / "publication.json").read_text())["files"]
    assert set(listed) == files - {"README.md", "publication.json"}
    for name in ("config.json", "model.safetensors"):
        written = (tmp_path / "staged" / name).read_bytes()
        assert listed[name] == {"sha256": hashlib.sha256(written).hexdigest(), "blob_id": git_hash(written)}
    config = json.loads((tmp_path / "staged" / "config.json").read_text())
    assert set(config["auto_map"]) >= {"AutoModel", "AutoModelForZeroShotImageClassification"}
    expected = HFClipModel.from_pretrained(model_folder).eval()(**tiny_inputs()).logits_per_image
    found = AutoModel.from_pretrained(tmp_path / "staged").eval()(**tiny_inputs()).logits_per_image
    assert torch.equal(found, expected)
    assert AutoProcessor.from_pretrained(tmp_path / "staged")(text=["a b"])["input_ids"]


def test_twice_the_same_folder(model_folder, evaluated, tmp_path):
    for name in ("once", "twice"):
        stage(SavedModel(model_folder), tmp_path / name, content(evaluations=[evaluated], pictures=True))
    assert snapshot(tmp_path / "once") == snapshot(tmp_path / "twice")


def test_large_weights_are_shared_out_over_files(model_folder, tmp_path):
    """As transformers itself would save them."""
    stage(SavedModel(model_folder), tmp_path / "staged", content(max_shard_size="100KB"))
    shards = sorted((tmp_path / "staged").glob("model-*.safetensors"))
    assert len(shards) > 1
    assert all(shard.stat().st_size < 120_000 for shard in shards)
    assert not (tmp_path / "staged" / "model.safetensors").exists()
    opened, told = HFClipModel.from_pretrained(tmp_path / "staged", output_loading_info=True)
    assert not told["missing_keys"]
    whole = HFClipModel.from_pretrained(model_folder).state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in opened.state_dict().items())
    stage(SavedModel(tmp_path / "staged"), tmp_path / "again", content())  # what is in shards stays so
    assert sorted(file.name for file in (tmp_path / "again").glob("model-*")) == [shard.name for shard in shards]
    assert HFClipModel.from_pretrained(tmp_path / "again")
    with pytest.raises(InputError, match="'large' is no size: give one such as 5GB"):
        stage(SavedModel(model_folder), tmp_path / "large", content(max_shard_size="large"))


# ---- figures and pictures -----------------------------------------------------------------------------------------


def test_figures_go_along_and_pictures_of_the_data_only_when_asked(model_folder, evaluated, tmp_path):
    (model_folder / "pictures").mkdir()
    for name in ("training_curve", "retrieval"):
        Image.new("RGB", (8, 8)).save(model_folder / "pictures" / f"{name}.png")
    stage(SavedModel(model_folder), tmp_path / "staged", content(evaluations=[evaluated]))
    stage(SavedModel(model_folder), tmp_path / "shown", content(evaluations=[evaluated], pictures=True))
    charts = {"recall_retrieval.png", "similarities_retrieval.png"}
    grids = {"best_retrievals.png", "worst_retrievals.png"}
    for folder, found, own in (("staged", charts, set()), ("shown", charts | grids, {"retrieval.png"})):
        place = tmp_path / folder / "evaluation" / "test set"
        assert {file.name for file in (place / "pictures").iterdir()} == found
        assert set(json.loads((place / "results.json").read_text())["pictures"]) == found
        assert all(name in (place / "report.md").read_text() for name in found)
        assert {file.name for file in (tmp_path / folder / "pictures").iterdir()} == {"training_curve.png"} | own
    assert "worst" not in texts(tmp_path / "staged" / "evaluation" / "test set").lower()


@pytest.mark.parametrize("kind", [str, Path])
def test_one_folder_of_figures_is_one(kind, model_folder, evaluated, tmp_path):
    stage(SavedModel(model_folder), tmp_path / "staged", content(evaluations=kind(evaluated)))
    assert (tmp_path / "staged" / "evaluation" / "test set" / "results.json").is_file()


def test_figures_stand_under_the_published_name(model_folder, evaluated, tmp_path):
    facts = stage(SavedModel(model_folder), tmp_path / "staged", content(evaluations=[evaluated]))
    results = json.loads((tmp_path / "staged" / "evaluation" / "test set" / "results.json").read_text())
    assert [model["name"] for model in results["models"]] == ["user/name"]
    assert {figure["model"] for figure in results["figures"]} == {"user/name"}
    before = json.loads((evaluated / "results.json").read_text())
    assert [f["value"] for f in results["figures"]] == [f["value"] for f in before["figures"]]
    (evaluation,) = facts.evaluations
    assert len(evaluation.figures) == len(before["figures"])


def test_an_evaluation_of_another_model_is_refused(model_folder, evaluated, tmp_path, processor):
    other = tmp_path / "other"
    tiny_model(seed=1).save_pretrained(other)
    processor.save_pretrained(other)
    with pytest.raises(InputError, match=r"test set measured another model: evaluate .*other with `hf-clip evaluate`"):
        stage(SavedModel(other), tmp_path / "staged", content(evaluations=[evaluated]))
    with pytest.raises(InputError, match=r"holds no results.json: give a folder that `hf-clip evaluate --output`"):
        stage(SavedModel(other), tmp_path / "staged2", content(evaluations=[tmp_path]))


def test_of_several_models_only_the_published_one_is_told(model_folder, pictures, tmp_path, processor):
    other = tmp_path / "rival"
    tiny_model(seed=1).save_pretrained(other)
    processor.save_pretrained(other)
    folder = str(tmp_path / "both")
    models = [str(other), str(model_folder)]
    assert (
        main(["evaluate", "--model", *models, "--data", str(pictures), "--output", folder, "--resamples", "50"]) == 0
    )
    stage(SavedModel(model_folder), tmp_path / "staged", content(evaluations=[folder]))
    assert "rival" not in texts(tmp_path / "staged" / "evaluation")
    figures = json.loads((Path(folder) / "results.json").read_text())["figures"]
    expected = [figure["value"] for figure in figures if figure["model"] == "model"]
    found = json.loads((tmp_path / "staged" / "evaluation" / "both" / "results.json").read_text())["figures"]
    assert [figure["value"] for figure in found] == expected


def test_a_run_s_figures_of_other_weights_are_left_out(model_folder, evaluated, tmp_path, caplog):
    os.rename(evaluated, model_folder / "evaluation")
    stage(SavedModel(model_folder), tmp_path / "fresh", content())
    assert (tmp_path / "fresh" / "evaluation" / "results.json").is_file()
    tiny_model(seed=1).save_pretrained(model_folder)
    stage(SavedModel(model_folder), tmp_path / "stale", content())
    assert not (tmp_path / "stale" / "evaluation").exists()
    assert "is of other weights than the model beside it, and is left out" in caplog.text


@pytest.mark.parametrize(
    ("path", "value"),
    [(("figures", 0, "value"), "high"), (("figures", 0, "low"), float("nan")), (("data",), [1]), (("models",), [])],
)
def test_a_report_of_another_shape_ends_publish_in_one_line(path, value, model_folder, tmp_path, capsys):
    (tmp_path / "ev").mkdir()
    (tmp_path / "ev" / "results.json").write_text(json.dumps(changed(path, value)))
    arguments = [
        "--model",
        str(model_folder),
        "--repo_id",
        "user/name",
        "--dry_run",
        "--output",
        str(tmp_path / "out"),
    ]
    assert main(["publish", *arguments, "--evaluation", str(tmp_path / "ev")]) == 2
    said = capsys.readouterr().err
    assert (said.count("\n"), "ev/results.json is not as hf_clip writes it" in said) == (1, True)
    assert not (tmp_path / "out").exists()


def test_an_example_picture_loses_what_the_camera_wrote(model_folder, tmp_path):
    photograph, exif = Image.new("RGB", (40, 30), COLORS[0]), Image.Exif()
    exif[0x010E] = "taken at home"
    photograph.save(tmp_path / "photo.jpg", exif=exif)
    assert b"taken at home" in (tmp_path / "photo.jpg").read_bytes()
    given = content(example_picture=tmp_path / "photo.jpg")
    stage(SavedModel(model_folder), tmp_path / "staged", given)
    copied = tmp_path / "staged" / "pictures" / "example.png"
    assert Image.open(copied).size == (40, 30)
    assert b"taken at home" not in copied.read_bytes()
    assert "pictures/example.png" in (tmp_path / "staged" / "README.md").read_text()
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken.jpg cannot be read"):
        stage(SavedModel(model_folder), tmp_path / "other", content(example_picture=tmp_path / "broken.jpg"))


# ---- what must not go up ------------------------------------------------------------------------------------------


def test_a_token_is_refused_wherever_it_stands(model_folder, tmp_path, monkeypatch):
    details = CardDetails("user/name", description=f"ask me, I am {TOKEN}")
    training = TrainingRecord(hyperparameters=SettingsRecord(changed={"note": TOKEN}))
    with pytest.raises(InputError, match=r"training.json would hold an access token") as caught:
        stage(SavedModel(model_folder), tmp_path / "by facts", content(training=training))
    assert TOKEN not in str(caught.value)
    stage(SavedModel(model_folder), tmp_path / "described", PublishOptions(details, run_examples=False))
    assert TOKEN not in texts(tmp_path / "described")  # the card leaves it out
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "a-token-of-another-kind")
    (tmp_path / "described" / "evaluation").mkdir()
    (tmp_path / "described" / "evaluation" / "report.md").write_text("see a-token-of-another-kind")
    with pytest.raises(InputError, match=r"evaluation/report.md would hold an access token"):
        refuse_secrets(tmp_path / "described", model_folder)
    (tmp_path / "described" / "evaluation" / "report.md").unlink()
    refuse_secrets(tmp_path / "described", model_folder)
    (tmp_path / "described" / ".env").write_text("hf_planted-by-argument")
    with pytest.raises(InputError, match=r".env would hold an access token"):
        refuse_secrets(tmp_path / "described", model_folder, "hf_planted-by-argument")


def test_settings_that_are_paths_are_told_by_their_last_part(tmp_path, model_folder):
    """Also where the folder is of another machine."""
    data = [DataRecord(name="/mnt/disk/team/pictures", pictures=8)]
    training = TrainingRecord(data=data, started_from=r"C:\Users\me\model")
    config = json.loads((model_folder / "config.json").read_text())
    config["vision_config"]["file"] = "/data/team/towers/resnet.pth"
    (model_folder / "config.json").write_text(json.dumps(config))
    stage(SavedModel(model_folder), tmp_path / "staged", content(training=training))
    told = json.loads((tmp_path / "staged" / "training.json").read_text())
    assert (told["data"][0]["name"], told["started_from"]) == ("pictures", "model")
    assert json.loads((tmp_path / "staged" / "config.json").read_text())["vision_config"]["file"] == "resnet.pth"


def test_where_the_towers_lay_is_not_told(tower_folders, tmp_path):
    from hf_clip import create_model_and_processor

    model, processor = create_model_and_processor(*tower_folders)
    assert model.config.text_config._name_or_path == tower_folders[1]
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    stage(SavedModel(tmp_path / "model"), tmp_path / "staged", content())
    assert str(tmp_path) not in texts(tmp_path / "staged")


def test_names_of_pictures_that_could_not_be_read_are_told_without_their_folder(model_folder, pictures, tmp_path):
    (pictures / "1.png").write_bytes(b"")
    rows = [f'{{"image_path": "{pictures / f"{i}.png"}", "caption": "c {i}"}}' for i in range(8)]
    (tmp_path / "absolute.jsonl").write_text("\n".join(rows))
    folder = str(tmp_path / "ev")
    arguments = ["--data", str(tmp_path / "absolute.jsonl"), "--output", folder, "--resamples", "50"]
    assert main(["evaluate", "--model", str(model_folder), *arguments]) == 0
    stage(SavedModel(model_folder), tmp_path / "staged", content(evaluations=[folder]))
    results = json.loads((tmp_path / "staged" / "evaluation" / "ev" / "results.json").read_text())
    assert results["skipped"] == [[1, "1.png", "the file is empty"]]


# ---- what lies beside the model -----------------------------------------------------------------------------------


def write_export(model_folder, digest):
    put(model_folder, "onnx/export.json", EXPORT | {"model": {"name": "model", "digest": digest}})
    for name in ("text_model.onnx", ".env", "notes.bin"):
        (model_folder / "onnx" / name).write_text(TOKEN)


def test_graphs_go_up_only_with_the_weights_that_they_were_made_of(model_folder, tmp_path, caplog):
    write_export(model_folder, weights_digest(HFClipModel.from_pretrained(model_folder)))
    stage(SavedModel(model_folder), tmp_path / "fresh", content())
    assert {file.name for file in (tmp_path / "fresh" / "onnx").iterdir()} == {"export.json", "text_model.onnx"}
    write_export(model_folder, "another")
    stage(SavedModel(model_folder), tmp_path / "stale", content())
    assert not (tmp_path / "stale" / "onnx").exists()
    assert "was exported from other weights than the model's, and is left out" in caplog.text


def test_stray_weights_stay_here(model_folder, tmp_path):
    (model_folder / "model_old.safetensors").write_bytes(b"old")
    stage(SavedModel(model_folder), tmp_path / "staged", content())
    assert not (tmp_path / "staged" / "model_old.safetensors").exists()


def test_a_folder_of_links_is_staged_as_files(model_folder, tmp_path):
    """As the Hub's cache lays a snapshot out, relative links into a folder of blobs."""
    linked = tmp_path / "cache" / "snapshot"
    linked.mkdir(parents=True)
    for file in model_folder.iterdir():
        (linked / file.name).symlink_to(Path("..", "..", "model", file.name))
    stage(SavedModel(linked), tmp_path / "staged", content())
    assert not (tmp_path / "staged" / "model.safetensors").is_symlink()
    assert snapshot(tmp_path / "staged")["model.safetensors"] == snapshot(model_folder)["model.safetensors"]


def test_a_folder_that_is_kept_shares_nothing_with_the_run(model_folder, tmp_path):
    stage(SavedModel(model_folder), tmp_path / "kept", content(), copy=True)
    for file in (tmp_path / "kept").rglob("*"):
        assert file.is_dir() or file.stat().st_nlink == 1
    stage(SavedModel(model_folder), tmp_path / "linked", content())
    assert (tmp_path / "linked" / "model.safetensors").stat().st_nlink == 2


def test_two_evaluations_of_one_name_are_refused(model_folder, evaluated, tmp_path):
    shutil.copytree(evaluated, tmp_path / "elsewhere" / evaluated.name)
    given = [evaluated, tmp_path / "elsewhere" / evaluated.name]
    with pytest.raises(InputError, match=r"two evaluations would be evaluation/test set: give one .* another"):
        stage(SavedModel(model_folder), tmp_path / "staged", content(evaluations=given))


def test_the_run_s_pictures_may_be_shown_and_those_of_other_data_may_not(model_folder, evaluated, tmp_path):
    shown = TrainingRecord(pictures_may_be_shown=True)
    stage(SavedModel(model_folder), tmp_path / "staged", content(evaluations=[evaluated], training=shown))
    assert not list((tmp_path / "staged").rglob("worst_retrievals.png"))


@pytest.mark.parametrize("damaged", ["[]", "{", '{"models": 3}'])
def test_a_file_of_another_shape_is_one_line(damaged, model_folder, evaluated, tmp_path):
    (evaluated / "results.json").write_text(damaged)
    with pytest.raises(InputError, match=r"results.json|no JSON") as caught:
        stage(SavedModel(model_folder), tmp_path / "staged", content(evaluations=[evaluated]))
    assert "\n" not in str(caught.value)


# ---- folders that are none ----------------------------------------------------------------------------------------


def test_a_folder_without_a_whole_model_is_refused(model_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no model"):
        stage(SavedModel(tmp_path / "empty"), tmp_path / "staged", content())
    (model_folder / "tokenizer.json").unlink()
    (model_folder / "processor_config.json").write_text("{")
    with pytest.raises(InputError, match="model is no folder of a whole hf_clip model"):
        stage(SavedModel(model_folder), tmp_path / "staged2", content())


def test_half_a_model_is_not_published_as_a_whole_one(tmp_path, processor):
    HFClipTextModelWithProjection(tiny_model().config).save_pretrained(tmp_path / "half")
    processor.save_pretrained(tmp_path / "half")
    with pytest.raises(InputError, match=r"holds a part of a model \(HFClipTextModelWithProjection\)"):
        stage(SavedModel(tmp_path / "half"), tmp_path / "staged", content())


def test_the_kind_of_a_whole_model_is_not_guessed(model_folder, tmp_path):
    (model_folder / "config.json").write_text("{}")
    with pytest.raises(InputError, match="does not say what kind of model it holds"):
        stage(SavedModel(model_folder), tmp_path / "staged", content())


def test_a_model_saved_without_a_run_is_published_too(tmp_path, processor):
    """Nothing is known of its training, and nothing is made up."""
    tiny_model().save_pretrained(tmp_path / "model")
    HFClipProcessor(processor.image_processor, processor.tokenizer).save_pretrained(tmp_path / "model")
    stage(SavedModel(tmp_path / "model"), tmp_path / "staged", content())
    card = (tmp_path / "staged" / "README.md").read_text()
    assert "comes without an evaluation" in card
    assert "## Training" not in card


def test_a_fault_of_the_program_is_none_of_the_folder_s(model_folder, tmp_path, monkeypatch):
    """What hf_clip gets wrong itself is not told as a file that "hf_clip did not write so"."""
    monkeypatch.setattr(staging, "write_card", lambda *args, **settings: None.render())
    with pytest.raises(AttributeError, match="render"):
        stage(SavedModel(model_folder), tmp_path / "staged", content())
