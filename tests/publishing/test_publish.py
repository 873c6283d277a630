"""`hf_clip.publish` as a Python caller has it."""

import json
from dataclasses import replace

import pytest

import hf_clip
from hf_clip.core.errors import InputError
from hf_clip.publishing.hub import file_sizes


@pytest.fixture
def options() -> hf_clip.PublishOptions:
    return hf_clip.PublishOptions(hf_clip.CardDetails(license="mit"), run_examples=False)


def test_a_dry_run_writes_what_is_published(own_hub, model_folder, tmp_path, monkeypatch, capsys, options):
    """The eighth line of the README, and what it writes without more being said."""
    monkeypatch.chdir(tmp_path)
    folder = hf_clip.publish(model_folder, "user/my-clip", options, dry_run=True)
    assert str(folder) == "hf_clip_publication"
    assert not own_hub.log
    published = hf_clip.publish(model_folder, "user/my-clip", options)
    assert published.changed
    assert published.url == f"{own_hub.endpoint}/user/my-clip"
    assert published.files == file_sizes(folder)
    head = own_hub.repos["user/my-clip"].head()
    assert published.revision == head.sha
    assert head.files["README.md"].content == (folder / "README.md").read_bytes()
    assert "license: mit" in (folder / "README.md").read_text()
    assert capsys.readouterr().out == ""


def test_a_target_says_how(own_hub, model_folder, options):
    target = hf_clip.HubTarget("my-clip", private=True, token=own_hub.token)
    assert own_hub.token not in repr(target)
    hf_clip.publish(model_folder, target, options, commit_message="my first")
    repository = own_hub.repos["user/my-clip"]
    assert (repository.private, repository.head().title) == (True, "my first")
    card = repository.head().files["README.md"].content.decode()
    assert json.dumps("user/my-clip") in card


def test_what_cannot_be_is_one_line(own_hub, model_folder, tmp_path, options):
    with pytest.raises(InputError, match="a dry run asks nobody whose name is: give repo_id with its owner, user/"):
        hf_clip.publish(model_folder, "name", options, dry_run=True)
    with pytest.raises(InputError, match="lies in the model's own folder"):
        hf_clip.publish(model_folder, "user/name", options, dry_run=True, output=model_folder / "here")
    with pytest.raises(InputError, match="model is a tuple: give a Hub id, or the folder that save_pretrained wrote"):
        hf_clip.publish((None, None), "user/name", options)
    with pytest.raises(InputError, match="holds no model"):
        hf_clip.publish(tmp_path, "user/name", options)
    with pytest.raises(InputError, match="model nobody/nothing is no folder, nor on the Hub"):
        hf_clip.publish("nobody/nothing", "user/name", options, dry_run=True)
    with pytest.raises(InputError, match=r"options are CardDetails: give PublishOptions\(details\)"):
        hf_clip.publish(model_folder, "user/name", hf_clip.CardDetails(), dry_run=True)
    with pytest.raises(InputError, match=r"adapter_of is for an adapter, and .* holds a whole model: leave out"):
        hf_clip.publish(model_folder, "user/name", replace(options, adapter_of="user/base"), dry_run=True)
    with pytest.raises(InputError, match='target is a NoneType: give "user/name" or a HubTarget'):
        hf_clip.publish(model_folder, None, options, dry_run=True)
    for name in ("user/", "a/b/c", "user/na me"):
        with pytest.raises(InputError, match=f"'{name}' is no name of a repository on the Hub"):
            hf_clip.publish(model_folder, name, options, dry_run=True, output=tmp_path / "out")
    assert not own_hub.repos
