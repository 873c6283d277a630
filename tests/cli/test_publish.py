"""`hf-clip publish` against a Hub that is run here, and what a stranger gets of it."""

import json

import pytest
from conftest import tiny_model
from strangers import run_stranger

from hf_clip.cli.main import main


def snapshot(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def publish(folder, *more) -> int:
    return main(["publish", "--model", str(folder), "--repo_id", "user/name", *more])


@pytest.fixture
def without_examples(monkeypatch):
    """Each run of the card's examples opens two processes."""
    monkeypatch.setattr("hf_clip.publishing.card.render.run_examples", lambda folder, name, examples: examples)


def test_a_model_is_published_in_one_commit_and_a_second_time_changes_nothing(
    own_hub, model_folder, capsys, without_examples
):
    before = snapshot(model_folder)
    assert publish(model_folder, "--json", "--license", "apache-2.0") == 0
    first = json.loads(capsys.readouterr().out)
    repository = own_hub.repos["user/name"]
    head = repository.head()
    assert first["changed"]
    assert first["revision"] == head.sha
    assert [commit.title for commit in repository.commits][-1] == "Publish with hf_clip"
    assert {file["name"] for file in first["files"]} == set(head.files) - {".gitattributes"}
    assert head.files["model.safetensors"].content == (model_folder / "model.safetensors").read_bytes()
    commits = len(repository.commits)
    assert publish(model_folder, "--json", "--license", "apache-2.0") == 0
    second = json.loads(capsys.readouterr().out)
    assert (second["changed"], second["revision"]) == (False, head.sha)
    assert len(repository.commits) == commits
    assert snapshot(model_folder) == before


def test_what_was_published_says_so(own_hub, model_folder, capsys, without_examples):
    assert publish(model_folder, "--commit_message", "my first") == 0
    output = capsys.readouterr().out
    head = own_hub.repos["user/name"].head()
    assert output.splitlines()[-1] == f"published: {own_hub.endpoint}/user/name at {head.sha}"
    assert head.title == "my first"
    assert publish(model_folder) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("nothing has changed: ")


def test_privately_to_a_branch_and_as_a_pull_request(own_hub, model_folder, capsys, without_examples, processor):
    assert publish(model_folder, "--private") == 0
    repository = own_hub.repos["user/name"]
    assert repository.private
    main_before = repository.head().sha
    tiny_model(seed=1).save_pretrained(model_folder)
    assert publish(model_folder, "--revision", "second") == 0
    assert repository.head("second").sha != main_before
    assert publish(model_folder, "--create_pr") == 0
    assert "/discussions/" in capsys.readouterr().out.splitlines()[-1]
    assert repository.head().sha == main_before


def test_a_dry_run_writes_the_folder_and_asks_nobody(own_hub, model_folder, tmp_path, capsys, without_examples):
    folder = tmp_path / "here" / "publication"
    assert publish(model_folder, "--dry_run", "--output", str(folder)) == 0
    output = capsys.readouterr().out
    assert not own_hub.log
    listed = {line.split()[0] for line in output.splitlines()[1:] if line and line.split()[-1].isdecimal()}
    assert listed == set(snapshot(folder))
    assert f"nothing was sent; this is what would go up to user/name: {folder}" in output
    assert [path.name for path in folder.parent.iterdir()] == ["publication"]
    assert publish(model_folder, "--dry_run", "--output", str(folder)) == 2
    assert "publication already exists: give another output, or remove it" in capsys.readouterr().err
    assert publish(model_folder) == 0
    uploaded = own_hub.repos["user/name"].head().files
    assert {name: file.content for name, file in uploaded.items() if name != ".gitattributes"} == snapshot(folder)


@pytest.mark.parametrize(
    ("token", "line"),
    [(None, "there is no token for"), ("expired_token", "does not take the token"), ("read_token", "may not write")],
)
def test_without_the_right_token_it_ends_in_one_line(token, line, own_hub, model_folder, capsys, monkeypatch):
    """Before anything is made ready."""
    monkeypatch.setattr("hf_clip.publishing.publish.stage", lambda *_, **__: pytest.fail("too late"))
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", getattr(own_hub, token))
    assert publish(model_folder) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("hf-clip publish: ")
    assert line in error
    assert "hf_planted" not in error
    assert "user/name" not in own_hub.repos


def test_a_dry_run_needs_no_token(own_hub, model_folder, tmp_path, monkeypatch, without_examples):
    monkeypatch.delenv("HF_TOKEN")
    assert publish(model_folder, "--dry_run", "--output", str(tmp_path / "here")) == 0
    assert not own_hub.log


def test_what_others_have_put_there_is_refused_before_anything_is_made_ready(
    own_hub, model_folder, capsys, monkeypatch, without_examples
):
    own_hub.commit("user/name", {"pytorch_model.bin": b"w", "adapter_config.json": b"{}"})
    with monkeypatch.context() as patch:
        patch.setattr("hf_clip.publishing.publish.stage", lambda *_, **__: pytest.fail("too late"))
        assert publish(model_folder) == 2
    assert "user/name holds an adapter: adapter_config.json, pytorch_model.bin" in capsys.readouterr().err
    assert publish(model_folder, "--overwrite") == 0
    files = own_hub.repos["user/name"].head().files
    assert files["pytorch_model.bin"].content == b"w"
    assert "adapter_config.json" not in files


def test_the_owner_stands_in_the_card_or_nothing_is_published(own_hub, model_folder, capsys, without_examples):
    name = ["publish", "--model", str(model_folder), "--repo_id", "my-clip"]
    own_hub.fault("GET /api/whoami-v2", status=500, times=99)
    assert main(name) == 2
    assert "is in trouble (500 at /api/whoami-v2" in capsys.readouterr().err
    assert not own_hub.repos
    own_hub._faults.clear()
    own_hub.fault("GET /api/whoami-v2", status=503, times=1)
    assert main(name) == 0
    assert 'from_pretrained("user/my-clip"' in own_hub.repos["user/my-clip"].head().files["README.md"].content.decode()


def test_a_time_too_short_ends_in_one_line(own_hub, model_folder, capsys, in_a_process, without_examples):
    own_hub.fault("GET /api/whoami-v2", hang=True)
    assert publish(model_folder, "--timeout", "1") == 2
    assert "took longer than 1 s, and was left while asking whose the token is" in capsys.readouterr().err


def test_a_folder_without_a_model_is_refused_before_anybody_is_asked(own_hub, tmp_path, capsys):
    assert publish(tmp_path) == 2
    assert "holds no model" in capsys.readouterr().err
    assert not own_hub.log


def test_a_card_field_of_the_user_is_mere_text(own_hub, model_folder, without_examples):
    assert (
        publish(model_folder, "--description", "{{ 7 * 7 }} <script>x</script> # no heading", "--language", "en") == 0
    )
    card = own_hub.repos["user/name"].head().files["README.md"].content.decode()
    assert "{{ 7 \\* 7 }}" in card
    assert "\\<script>" in card
    assert "language:\n- en\n" in card


@pytest.mark.slow
def test_the_card_s_examples_are_run_on_what_goes_up(own_hub, model_folder):
    """In processes of their own, without the Hub's token."""
    assert publish(model_folder, "--example_labels", "a red circle", "a cat") == 0
    card = own_hub.repos["user/name"].head().files["README.md"].content.decode()
    assert card.count("\nprints\n") == 4  # AutoModel, the pipeline, hf_clip, sentence-transformers
    import torch
    from PIL import Image
    from transformers import AutoModel, AutoProcessor

    model, processor = AutoModel.from_pretrained(model_folder).eval(), AutoProcessor.from_pretrained(model_folder)
    picture = Image.new("RGB", (224, 224), "red")
    with torch.no_grad():
        logits = model(**processor(images=picture, text=["a red circle", "a cat"], return_tensors="pt"))
    red, cat = logits.logits_per_image.softmax(1)[0].tolist()
    answers = [f"a red circle: {red:.3f}", f"a cat: {cat:.3f}"]
    assert "\n".join(answers) in card
    assert "\n".join(answers if red > cat else answers[::-1]) in card.partition("### The pipeline")[2]


def test_an_adapter_goes_up_over_the_base_that_is_named(own_hub, model_folder, tmp_path, capsys, without_examples):
    import peft

    from hf_clip import HFClipModel, HFClipProcessor

    assert publish(model_folder) == 0
    base = HFClipModel.from_pretrained(model_folder)
    lora = peft.LoraConfig(r=2, target_modules=["query"], modules_to_save=["text_projection"])
    peft.get_peft_model(base, lora).save_pretrained(tmp_path / "adapter")
    HFClipProcessor.from_pretrained(model_folder).save_pretrained(tmp_path / "adapter")
    arguments = ["publish", "--model", str(tmp_path / "adapter"), "--repo_id", "user/adapter"]
    assert main(arguments) == 2
    assert "give base_model user/name" in capsys.readouterr().err
    assert main([*arguments, "--base_model", "user/name"]) == 0
    files = own_hub.repos["user/adapter"].head().files
    assert json.loads(files["adapter_config.json"].content)["base_model_name_or_path"] == "user/name"
    card = files["README.md"].content.decode()
    assert "library_name: peft" in card
    assert "base_model: user/name" in card or "base_model:\n- user/name" in card
    assert main([*arguments, "--base_model", "user/name", "user/other"]) == 2
    assert "an adapter has one base, not 2" in capsys.readouterr().err


def test_what_is_on_the_hub_is_published_under_another_name(
    own_hub, model_folder, tmp_path, monkeypatch, without_examples
):
    assert publish(model_folder) == 0
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert main(["publish", "--model", "user/name", "--repo_id", "user/copy"]) == 0
    first, second = (own_hub.repos[name].head().files for name in ("user/name", "user/copy"))
    assert second["model.safetensors"].content == first["model.safetensors"].content


def test_where_a_dry_run_may_write(own_hub, model_folder, capsys):
    assert publish(model_folder, "--dry_run", "--output", str(model_folder / "pub")) == 2
    assert "lies in the model's own folder: give one beside it" in capsys.readouterr().err
    assert main(["publish", "--model", str(model_folder), "--repo_id", "name", "--dry_run"]) == 2
    assert "give repo_id with its owner, user/name" in capsys.readouterr().err


STRANGER = """
import sys
from transformers import AutoModel, pipeline

name, sha = sys.argv[1:]
opened = {"revision": sha, "code_revision": sha, "trust_remote_code": True}
print(AutoModel.from_pretrained(name, **opened).config.projection_dim)
"""


def test_a_stranger_opens_it_by_its_name(own_hub, model_folder, tmp_path, without_examples):
    assert publish(model_folder) == 0
    sha = own_hub.repos["user/name"].head().sha
    printed = run_stranger(STRANGER, "user/name", sha, folder=tmp_path, hub=own_hub.endpoint)
    assert "16" in printed.split()
