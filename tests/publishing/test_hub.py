"""Pushing to a Hub that is run here: the real client, every fault, and a stranger who opens what was pushed."""

import hashlib
import io
import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

import huggingface_hub.constants
import huggingface_hub.utils._http
import pytest
import torch
from conftest import tiny_inputs, tiny_model
from hub_server import SIGNATURE
from PIL import Image
from safetensors.torch import save_file
from strangers import run_stranger

from hf_clip import HFClipModel
from hf_clip.core.errors import InputError
from hf_clip.publishing import hub_calls, hub_process
from hf_clip.publishing.hub import HubTarget, look_first, open_repository, push_folder
from hf_clip.publishing.hub_contents import write_manifest

NAME = "user/name"
_README = "---\nlibrary_name: transformers\n---\n# Version {}\n"

STRANGER = """
import sys
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor, pipeline

inputs, picture, result, *asked = sys.argv[1:]
outputs = []
for name, sha, token in zip(asked[::3], asked[1::3], asked[2::3]):
    opened = {"revision": sha, "code_revision": sha, "trust_remote_code": True, "token": token or None}
    model = AutoModel.from_pretrained(name, **opened).eval()
    assert type(model).__module__.startswith("transformers_modules"), type(model)
    processor = AutoProcessor.from_pretrained(name, revision=sha, trust_remote_code=True, token=token or None)
    classify = pipeline("zero-shot-image-classification", model=name, revision=sha, trust_remote_code=True,
                        token=token or None, model_kwargs={"code_revision": sha})
    with torch.no_grad():
        logits = model(**torch.load(inputs)).logits_per_image
        processed = model(**processor(images=Image.open(picture), text=["a b", "c"], return_tensors="pt"))
    scores = classify(picture, candidate_labels=["a b", "c"], hypothesis_template="{}")
    outputs.append({"logits": logits, "processed": processed.logits_per_image, "scores": scores})
torch.save(outputs, result)
"""


@pytest.fixture
def folder(tmp_path):
    """What is pushed where nobody opens it: two shards of weights, and three other files."""
    return write_folder(tmp_path / "folder")


def write_folder(folder, version: int = 0, shards: int = 2):
    (folder / "pictures").mkdir(parents=True)
    for shard in range(shards):
        weights = {"weight": torch.full((2_000,), 10.0 * version + shard)}
        save_file(weights, folder / f"model-{shard + 1:05}-of-{shards:05}.safetensors")
    (folder / "config.json").write_text(f'{{"model_type": "hf_clip", "version": {version}}}')
    (folder / "README.md").write_text(_README.format(version))
    (folder / "pictures" / "curve.png").write_bytes(b"\x89PNG" + bytes([version]) * 100)
    return folder


def push(hub, folder, name=NAME, *, token=None, commit_message="Publish with hf_clip", **settings):
    target = HubTarget(name, endpoint=hub.endpoint, token=token or hub.token, **settings)
    return push_folder(folder, target, commit_message=commit_message)


def contents(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def published(hub, revision: str = "main", name: str = NAME) -> dict[str, bytes]:
    files = hub.repos[name].head(revision).files
    return {path: file.content for path, file in files.items() if path != ".gitattributes"}


@pytest.fixture
def refused(hub, caplog, capfd):
    """Calls, and gives the one line it ends in, having looked for secrets in all that could be read."""
    caplog.set_level(logging.INFO)

    def call(function, *arguments, **settings) -> str:
        with pytest.raises(InputError) as caught:
            function(*arguments, **settings)
        told, error = [], caught.value
        while error is not None:
            told += [*traceback.format_exception(error), repr(error.__dict__)]
            error = error.__cause__ or error.__context__
        captured = capfd.readouterr()
        assert_no_secrets("\n".join([*told, caplog.text, captured.out, captured.err]))
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 500
        assert ": " in message
        return message

    return call


def assert_no_secrets(text: str) -> None:
    assert "hf_planted" not in text
    assert SIGNATURE not in text
    assert "Bearer" not in text


# ---- what is there afterwards -------------------------------------------------------------------------------------


def test_a_stranger_opens_what_was_pushed(hub, processor, tmp_path, one_thread):
    first, second, inputs = tiny_model(seed=1).eval(), tiny_model(seed=2).eval(), tiny_inputs()
    shas = {}
    for name, model, private in (("user/secret", second, True), (NAME, first, False), (NAME, second, False)):
        model.save_pretrained(tmp_path / "model")
        processor.save_pretrained(tmp_path / "model")
        result = push(hub, tmp_path / "model", name, private=private)
        assert result.url == f"{hub.endpoint}/{name}"
        shas.setdefault(name, result.revision)
    assert hub.repos[NAME].head().files["model.safetensors"].lfs
    assert not hub.repos[NAME].head().files["config.json"].lfs
    assert hub.repos["user/secret"].private
    # The second push of the same weights, to another repository, had them there already.
    assert hub.count("PUT /storage") == 2
    picture = tmp_path / "picture.png"
    Image.linear_gradient("L").convert("RGB").resize((50, 40)).save(picture)
    torch.save(inputs, tmp_path / "inputs.pt")
    asked = [NAME, shas[NAME], "", "user/secret", shas["user/secret"], hub.read_token]
    files = [tmp_path / "inputs.pt", picture, tmp_path / "result.pt"]
    printed = run_stranger(STRANGER, *files, *asked, folder=tmp_path, hub=hub.endpoint, absent=("timm",))
    assert_no_secrets(printed)
    for model, result in zip((first, second), torch.load(tmp_path / "result.pt"), strict=True):
        model.save_pretrained(tmp_path / "model")
        model = HFClipModel.from_pretrained(tmp_path / "model").eval()  # some CPUs round by where weights lie
        with torch.no_grad():
            assert torch.equal(result["logits"], model(**inputs).logits_per_image)
            batch = processor(images=Image.open(picture), text=["a b", "c"], return_tensors="pt")
            processed = model(**batch).logits_per_image
        assert torch.equal(result["processed"], processed)
        probabilities = dict(zip(["a b", "c"], processed.softmax(1)[0].tolist(), strict=True))
        assert {entry["label"]: entry["score"] for entry in result["scores"]} == probabilities
    # Storage is another host: no token goes there.
    assert {request.auth for request in hub.log if request.path.startswith("/storage")} == {""}


def test_pushed_once_more_nothing_changes(hub, folder):
    first = push(hub, folder, commit_message="A title")
    assert first.changed
    assert first.pull_request is None
    assert published(hub) == contents(folder)
    assert [commit.title for commit in hub.repos[NAME].commits] == ["initial commit", "A title"]
    assert first.revision == hub.repos[NAME].head().sha
    asked = len(hub.log)
    again = push(hub, folder, private=False)
    assert (again.revision, again.changed, again.url) == (first.revision, False, first.url)
    assert [f"{request.method} {request.path}" for request in hub.log[asked:]] == [f"GET /api/models/{NAME}"]


def test_only_what_changed_goes_up(hub, folder):
    push(hub, folder)
    (folder / "config.json").write_text('{"model_type": "hf_clip", "version": 7}')
    sent = hub.count("PUT")
    assert push(hub, folder).changed
    assert published(hub) == contents(folder)
    assert hub.count("PUT") == sent


def test_files_of_an_earlier_publication_go_and_the_users_stay(hub, folder):
    push(hub, folder)
    ours = ["modeling_hf_clip.py", "evaluation/metrics.json", "evaluation/a/pictures/b.png", "onnx/text.onnx"]
    ours += ["model.safetensors.index.json", "merges.txt"]
    users = {"notes.txt": b"n", "my/modeling_hf_clip.py": b"m", "my/model.safetensors": b"w", "train.py": b"t"}
    users |= {"last-checkpoint/model.safetensors": b"c"}
    users |= {"adapter_model.safetensors": b"a", "adapter_config.json": b"{}"}  # beside a whole model never ours
    hub.commit(NAME, dict.fromkeys(ours, b"old") | users)
    other = write_folder(folder.parent / "other", version=1, shards=3)
    (other / "pictures" / "curve.png").rename(other / "pictures" / "recall.png")
    push(hub, other)
    assert published(hub) == contents(other) | users
    assert len(hub.repos[NAME].commits) == 4  # one for all of it
    assert ".gitattributes" in hub.repos[NAME].head().files


def test_a_branch_is_made_and_main_stays(hub, folder):
    push(hub, folder)
    main = hub.repos[NAME].head().sha
    other = write_folder(folder.parent / "other", version=1)
    result = push(hub, other, revision="next/try")
    assert result.url == f"{hub.endpoint}/{NAME}/tree/next/try"
    assert result.revision == hub.repos[NAME].head("next/try").sha
    assert published(hub, "next/try") == contents(other)
    assert hub.repos[NAME].head().sha == main
    assert not push(hub, other, revision="next/try").changed


def test_a_pull_request_is_opened_once_and_main_stays(hub, folder):
    push(hub, folder)
    main = hub.repos[NAME].head().sha
    other = write_folder(folder.parent / "other", version=1)
    # Somebody who may not write there may propose.
    first = push(hub, other, create_pr=True, token=hub.other_token)
    assert first.pull_request == first.url == f"{hub.endpoint}/{NAME}/discussions/1"
    assert first.changed
    again = push(hub, other, create_pr=True, token=hub.other_token)
    assert (again.pull_request, again.revision, again.changed) == (first.pull_request, first.revision, False)
    assert len(hub.repos[NAME].pull_requests) == 1
    assert published(hub, "refs/pr/1") == contents(other)
    assert hub.repos[NAME].head().sha == main
    assert push(hub, folder, create_pr=True).pull_request is None  # main has it all


def test_large_files_go_up_in_parts(hub, folder):
    hub.part_size = 3_000
    push(hub, folder)
    assert published(hub) == contents(folder)
    assert hub.count("PUT /storage/[0-9a-f]+/[123]$") == 6
    assert hub.count("POST /complete") == 2


def test_a_bare_name_is_the_users_own(hub, folder):
    assert look_first(HubTarget("name", token=hub.token, endpoint=hub.endpoint)) == NAME
    assert look_first(HubTarget("other/name", token=hub.token, endpoint=hub.endpoint)) == "other/name"
    assert not hub.repos
    assert push(hub, folder, "name").url == f"{hub.endpoint}/{NAME}"
    assert not push(hub, folder, "name").changed
    hub.fault("GET /api/whoami-v2", status=404)
    assert look_first(HubTarget("name", token=hub.token, endpoint=hub.endpoint)) == "name"


def test_a_repository_is_opened_before_there_is_anything_to_push(hub, folder):
    for _ in range(2):
        assert open_repository(HubTarget("name", private=True, token=hub.token, endpoint=hub.endpoint)) == NAME
    assert hub.repos[NAME].private
    assert len(hub.repos[NAME].commits) == 1
    assert push(hub, folder).changed


@pytest.mark.parametrize("lacks", ["blob ids, trees, discussions", "blob ids, oids", "trees, discussions, oids"])
def test_a_hub_that_knows_less_will_do(hub, folder, lacks):
    hub.lacks = set(lacks.split(", "))
    push(hub, folder)
    old = write_folder(folder.parent / "other", version=1, shards=1)
    assert push(hub, old).changed
    assert published(hub) == contents(old)
    assert not push(hub, old).changed
    assert len(hub.repos[NAME].commits) == 3
    assert push(hub, folder, create_pr=True).pull_request.endswith("/discussions/1")


def test_the_folder_is_only_read(hub, folder):
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")}
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "x").write_text("not for others")
    push(hub, folder)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in before} == before
    assert not [path for path in published(hub) if path.startswith(".cache")]


# ---- what is refused ----------------------------------------------------------------------------------------------


def test_tokens(hub, folder, refused, monkeypatch):
    push(hub, folder)
    other = write_folder(folder.parent / "other", version=1)
    state = hub.repos[NAME].head().sha
    wrong = "hf_planted-wrong-token"
    for token, says in (
        (hub.expired_token, "does not take the token (401"),
        (wrong, "does not take the token (401"),
        (hub.read_token, "may not write to user/name"),
        (hub.other_token, "may not write to user/name"),
        ("hf_planted\nhf_planted", "holds characters that no token has"),
    ):
        assert says in refused(push, hub, other, token=token)
        assert hub.repos[NAME].head().sha == state
    assert "user/new" in refused(push, hub, other, "user/new", token=hub.read_token)
    assert "may not write to somebody/new" in refused(push, hub, other, "somebody/new")
    assert "there is no token" in refused(push_folder, other, HubTarget(NAME, endpoint=hub.endpoint))
    assert "does not take" in refused(look_first, HubTarget("name", token=wrong, endpoint=hub.endpoint))
    assert "user/new" not in hub.repos
    monkeypatch.setenv("HF_TOKEN", hub.token + "\n")  # as an editor leaves it
    assert push_folder(other, HubTarget(NAME, endpoint=hub.endpoint)).changed


def test_private_means_private(hub, folder, refused):
    push(hub, folder)
    other = write_folder(folder.parent / "other", version=1)
    assert "user/name is there already and is public" in refused(push, hub, other, private=True)
    assert published(hub) == contents(folder)
    assert "is public" in refused(
        open_repository, HubTarget(NAME, private=True, token=hub.token, endpoint=hub.endpoint)
    )
    push(hub, folder, "user/secret", private=True)
    assert not push(hub, folder, "user/secret").changed
    assert hub.repos["user/secret"].private
    # To others it is not there, and its name cannot be had.
    assert "user/secret" in refused(push, hub, folder, "user/secret", token=hub.other_token)


def test_another_models_repository_is_left_alone(hub, folder, refused):
    hub.commit(NAME, {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"theirs"})
    for settings in ({}, {"create_pr": True}):
        assert "user/name holds another model (model_type 'bert')" in refused(push, hub, folder, **settings)
    assert set(published(hub)) == {"config.json", "model.safetensors"}
    hub.commit("user/broken", {"config.json": b"no json"})
    assert "user/broken holds another model" in refused(push, hub, folder, "user/broken")
    assert set(published(hub, name="user/broken")) == {"config.json"}
    hub.commit("user/fresh", {"README.md": b"I shall put a model here"})
    assert push(hub, folder, "user/fresh").changed


@pytest.mark.parametrize("name", ["a/b/c", "user/", "na me", "user/a--b", "", "../up"])
def test_names_that_are_none(hub, folder, refused, name):
    refused(push, hub, folder, name)
    assert hub.repos == {}


def test_settings_that_cannot_be(hub, folder, refused, tmp_path):
    push(hub, folder)
    other, sha = write_folder(folder.parent / "other", version=1), hub.repos[NAME].head().sha
    assert "is a commit" in refused(push, hub, other, revision=sha)
    assert "has no branch 'nope'" in refused(push, hub, other, revision="nope", create_pr=True)
    assert "commit_message" in refused(push, hub, other, commit_message="")
    assert "holds no files" in refused(push, hub, tmp_path / "nowhere")
    (other / ".git").mkdir()
    (other / "sub" / ".cache").mkdir(parents=True)
    (other / "sub" / ".cache" / "x").write_text("no such folder on the Hub")
    assert "sub/.cache/x" in refused(push, hub, other)
    (other / "sub" / ".cache" / "x").unlink()
    (other / "README.md").write_text("---\na: [\n---\n")
    assert 'Invalid "README.md" metadata' in refused(push, hub, other)
    assert hub.repos[NAME].head().sha == sha


def test_without_a_network(hub, folder, refused, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        message = refused(push_folder, folder, HubTarget(NAME, endpoint=nobody, token=hub.token))
    assert f"the connection to {nobody} fails" in message
    secret = nobody.replace("//", "//somebody:hf_planted@")
    assert "hf_planted" not in refused(push_folder, folder, HubTarget(NAME, endpoint=secret, token=hub.token))
    assert "the connection" in refused(push_folder, folder, HubTarget(NAME, endpoint="hub.example", token=hub.token))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refused(push, hub, folder)


def test_what_is_not_there_may_be_called_forbidden(hub, folder):
    hub.repository_not_found = 401  # as the Hub says it to some
    assert push(hub, folder).changed


def test_a_server_that_is_no_hub(hub, folder, refused):
    hub.fault("GET /api/models", status=200, body="<html>Log in to the hotel's network</html>")
    assert "does not answer as a Hub does" in refused(push, hub, folder)
    hub.fault("GET /api/models", status=200, body="{}")
    assert "does not answer as a Hub does" in refused(push, hub, folder)


# ---- faults: the branch is the old one or the new one, and the next run goes on -----------------------------------

SECOND_SHARD = "MODEL-2"
ALWAYS = 99
COMMIT, STORAGE, INFO = f"POST /api/models/{NAME}/commit/", "PUT /storage/", f"GET /api/models/{NAME}$"
FAULTS = {
    "500s on info": ({"route": INFO, "status": 500, "times": ALWAYS}, "is in trouble (500 at /api/models/user/name"),
    "500s on validate-yaml": ({"route": "POST /api/validate-yaml", "status": 500}, "is in trouble (500"),
    "500s on preupload": ({"route": "POST .*/preupload/", "status": 503, "times": ALWAYS}, "is in trouble (503"),
    "500s on batch": ({"route": "POST .*/batch", "status": 500, "times": ALWAYS}, "is in trouble (500"),
    "500s on one blob": ({"route": SECOND_SHARD, "status": 500, "times": ALWAYS}, "is in trouble (500 at /storage"),
    "keys in XML": (
        {"route": SECOND_SHARD, "status": 403, "body": f"<Error><Key>{SIGNATURE}</Key></Error>"},
        "may not write",
    ),
    "dropped in a blob": ({"route": SECOND_SHARD, "drop": "midway", "times": ALWAYS}, "the connection to"),
    "dropped after a blob": ({"route": SECOND_SHARD, "drop": "after", "times": ALWAYS}, "the connection to"),
    "verify fails": ({"route": "POST .*/verify", "status": 500, "times": ALWAYS}, "is in trouble (500"),
    "500 on commit": ({"route": COMMIT, "status": 500}, "is in trouble (500"),
    "refused commit": ({"route": COMMIT, "status": 400, "body": '{"error": "too\\nlarge"}'}, "400 at"),
    "dropped before the commit": ({"route": COMMIT, "drop": "before"}, "the connection to"),
    "dropped in the commit": ({"route": COMMIT, "drop": "midway"}, "the connection to"),
    "the server repeats the token": (
        {"route": COMMIT, "status": 403, "body": '{"error": "hf_planted-write-token-abcdef may not"}'},
        "(token) may not",
    ),
    "lost, and then no answer": (
        [{"route": COMMIT, "drop": "after"}, {"route": INFO, "skip": 1, "status": 500, "times": ALWAYS}],
        "the connection to",
    ),
}  # fmt: skip


@pytest.mark.parametrize("faults", FAULTS)
def test_faults(hub, folder, refused, faults):
    push(hub, folder)
    old, new = contents(folder), write_folder(folder.parent / "new", version=1)
    faults, says = FAULTS[faults]
    shard = contents(new)["model-00002-of-00002.safetensors"]
    for fault in faults if isinstance(faults, list) else [faults]:
        route = fault["route"].replace(SECOND_SHARD, f"PUT /storage/{digest(shard)}")
        hub.fault(route, **{name: value for name, value in fault.items() if name != "route"})
    assert says in refused(push, hub, new)
    assert published(hub) in (old, contents(new))
    hub._faults.clear()
    stored = set(hub.blobs)
    sent = len(hub.log)
    push(hub, new)
    assert published(hub) == contents(new)
    assert len(hub.repos[NAME].commits) == 3  # one more than before, whatever happened
    again = {request.path.split("/")[-1] for request in hub.log[sent:] if request.method == "PUT"}
    assert not again & stored


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_passing_faults_are_ridden_out(hub, folder, caplog, capfd):
    """By the client, which repeats what may be repeated."""
    caplog.set_level(logging.INFO)
    hub.fault("POST .*/preupload/", status=500, times=2)
    hub.fault(STORAGE, status=502, times=2)
    hub.fault(STORAGE, drop="midway", times=2)
    hub.fault("POST .*/batch", drop="after")
    push(hub, folder)
    assert published(hub) == contents(folder)
    captured = capfd.readouterr()
    assert "thrown while requesting PUT" in caplog.text
    assert_no_secrets(caplog.text + captured.out + captured.err)


def succeeds(function, *arguments, says: str) -> bool:
    """Or is refused with these words."""
    try:
        function(*arguments)
    except InputError as error:
        if says not in str(error):
            raise
        return False
    return True


def test_a_token_that_expires_on_the_way(hub, folder):
    push(hub, folder)
    old, new, cut = contents(folder), write_folder(folder.parent / "new", version=1), 0
    hub.expire_after = cut
    while not succeeds(push, hub, new, says="does not take the token (401"):
        assert published(hub) == old
        cut += 1
        hub.expire_after = cut
    assert cut > 5
    assert len(hub.repos[NAME].commits) == 3
    assert published(hub) == contents(new)
    assert hub.count(STORAGE) == 3 + 3  # each blob once


def test_a_commit_between_ours_and_its_head(hub, folder, refused):
    push(hub, folder)
    new = write_folder(folder.parent / "new", version=1)
    hub.fault(COMMIT, before=lambda: hub.commit(NAME, {"notes.txt": b"mine"}))
    assert "someone else has committed to user/name" in refused(push, hub, new)
    assert published(hub) == contents(folder) | {"notes.txt": b"mine"}
    push(hub, new)
    assert published(hub) == contents(new) | {"notes.txt": b"mine"}


LOST = [{"drop": "after"}, {"status": 502, "handled": True}, {"status": 200, "body": "?", "handled": True}]


@pytest.mark.parametrize("lost", LOST, ids=["dropped", "502", "no JSON"])
@pytest.mark.parametrize("settings", [{}, {"revision": "next"}, {"create_pr": True}], ids=str)
def test_a_commit_whose_answer_is_lost_is_found(hub, folder, lost, settings):
    push(hub, folder)
    new = write_folder(folder.parent / "new", version=1)
    hub.fault("POST .*/commit/", **lost)
    result = push(hub, new, **settings)
    assert result.changed
    assert len(hub.repos[NAME].commits) == 3
    assert result.revision == hub.repos[NAME].commits[-1].sha
    assert bool(result.pull_request) == bool(settings.get("create_pr"))
    assert not push(hub, new, **settings).changed


@pytest.mark.parametrize(("status", "says"), [(None, "HF_HUB_DISABLE_XET=1"), (401, "does not take the token")])
def test_without_xet_storage_the_way_out_is_named(hub, folder, refused, monkeypatch, status, says):
    pytest.importorskip("hf_xet")
    push(hub, folder)
    new = write_folder(folder.parent / "new", version=1)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", False)
    if status:
        hub.fault("GET .*/xet-write-token", status=status, times=ALWAYS)
    assert says in refused(push, hub, new)
    assert hub.count("GET .*/xet-write-token") > 0
    assert published(hub) == contents(folder)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    push(hub, new)
    assert published(hub) == contents(new)


@pytest.mark.parametrize("disabled", [False, True])
def test_both_upload_paths_in_the_process(hub, folder, refused, in_a_process, monkeypatch, disabled):
    """As this process has it: HF_HUB_DISABLE_XET, which the client reads when it is imported."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", disabled)
    if disabled:
        assert push(hub, folder).changed
        assert published(hub) == contents(folder)
    else:
        assert "HF_HUB_DISABLE_XET=1" in refused(push, hub, folder)
        assert published(hub) == {}


# ---- what others have put there -----------------------------------------------------------------------------------

BERT = b'{"model_type": "bert"}'
OTHERS = {
    "adapter": ("an adapter", {"adapter_config.json": b"{}", "adapter_model.safetensors": b"w"}),
    "adapter with a tokenizer": ("an adapter", {"adapter_config.json": b"{}", "tokenizer.json": b"{}"}),
    "sentence-transformers": (
        "a sentence-transformers model",
        {"modules.json": b"[]", "config.json": BERT, "1_Pooling/config.json": b"{}", "model.safetensors": b"w"},
    ),
    "tokenizer": ("a tokenizer", {"tokenizer.json": b"{}", "vocab.txt": b"a"}),
    "bin": ("weights", {"pytorch_model.bin": b"w"}),
    "safetensors": ("weights", {"model.safetensors": b"w", "LICENSE": b"mit"}),
    "gguf": ("GGUF weights", {"model-Q4_K_M.gguf": b"w"}),
    "onnx": ("an ONNX model", {"onnx/model.onnx": b"w"}),
    "diffusers": ("a diffusers pipeline", {"model_index.json": b"{}", "unet/config.json": b"{}"}),
    "transformers": ("another model (model_type 'bert')", {"config.json": BERT, "model.safetensors": b"w"}),
    "no JSON": ("another model (model_type None)", {"config.json": b"no json"}),
    "a list": ("another model (model_type None)", {"config.json": b"[]"}),
    "a list as the kind": ("another model (model_type ['hf_clip'])", {"config.json": b'{"model_type": ["hf_clip"]}'}),
    "a checkpoint": ("files that", {"checkpoint-500/config.json": b'{"model_type": "hf_clip"}'}),
    "a notebook": ("files that hf_clip did not put there: run.ipynb", {"run.ipynb": b"{}"}),
    "our names": ("files that", {"training.json": b"{}", "publication.json": b'{"files": {"training.json": {}}}'}),
    "one in a folder": ("weights", {"hf_clip/config.json": b'{"model_type": "hf_clip"}', "a/b.bin": b"w"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_what_others_have_put_there_is_refused_and_stays(hub, folder, refused, kind):
    says, files = OTHERS[kind]
    hub.commit(NAME, files | {"README.md": b"theirs"})
    head = hub.repos[NAME].head().sha
    for settings in ({}, {"create_pr": True}, {"revision": "new"}):
        message = refused(push, hub, folder, **settings)
        assert f"user/name holds {says}" in message
        assert min(files) in message or max(files) in message
        assert "--overwrite" in message
    where = {"token": hub.token, "endpoint": hub.endpoint}
    assert says in refused(look_first, HubTarget(NAME, **where))
    assert says in refused(open_repository, HubTarget(NAME, **where))
    assert hub.repos[NAME].branches == {"main": head}
    assert not hub.repos[NAME].pull_requests
    assert hub.count("POST .*/(preupload|batch)") == 0
    # On a branch of its own it is judged by what that holds.
    hub.repos[NAME].branches["ours"] = hub.repos[NAME].commits[0].sha
    assert push(hub, folder, revision="ours").changed


@pytest.mark.parametrize("kind", OTHERS)
def test_overwrite_replaces_what_has_our_names_and_leaves_the_rest(hub, folder, kind):
    files = OTHERS[kind][1] | {"README.md": b"theirs", "notes/mine.txt": b"m"}
    hub.commit(NAME, files)
    assert look_first(HubTarget(NAME, token=hub.token, endpoint=hub.endpoint, overwrite=True)) == NAME
    assert push(hub, folder, overwrite=True).changed
    stays = {"LICENSE", "pytorch_model.bin", "model-Q4_K_M.gguf", "run.ipynb", "notes/mine.txt", "model_index.json"}
    stays |= {
        "1_Pooling/config.json",
        "unet/config.json",
        "checkpoint-500/config.json",
        "hf_clip/config.json",
        "a/b.bin",
    }
    assert published(hub) == contents(folder) | {name: files[name] for name in stays & files.keys()}
    assert not push(hub, folder, overwrite=True).changed


def test_what_is_anybodys_may_be_there(hub, folder):
    files = {"README.md": b"I shall put a model here", "LICENSE": b"mit", "LICENSE-APACHE": b"a", "NOTICE": b"n"}
    hub.commit("user/fresh", files | {".gitignore": b"*.safetensors\n"})
    assert push(hub, folder, "user/fresh").changed
    assert published(hub, name="user/fresh")["LICENSE"] == b"mit"
    assert contents(folder).items() <= published(hub, name="user/fresh").items()


def test_beside_our_publication_files_of_the_users_stay_and_do_not_hinder(hub, folder, refused):
    """By names alone each of them would be ours."""
    write_manifest(folder)
    push(hub, folder)
    users = {"pictures/team.png": b"t", "onnx/own.onnx": b"o", "evaluation/notes.md": b"e", "vocab.txt": b"v"}
    users |= {"adapter_config.json": b"{}", "adapter_model.safetensors": b"a", "notes.txt": b"n"}
    hub.commit(NAME, users)
    other = write_folder(folder.parent / "other", version=1, shards=3)
    (other / "pictures" / "curve.png").unlink()
    write_manifest(other)
    assert push(hub, other).changed
    assert published(hub) == contents(other) | users
    assert not push(hub, other).changed
    # In the way of one of ours they are named.
    (other / "vocab.txt").write_text("ours")
    write_manifest(other)
    assert "did not leave there so, and would replace: vocab.txt" in refused(push, hub, other)
    assert published(hub)["vocab.txt"] == b"v"
    assert push(hub, other, overwrite=True).changed
    assert published(hub) == contents(other) | {"notes.txt": b"n"}


def test_a_list_without_a_version_is_one_of_before(hub, folder):
    write_manifest(folder)
    push(hub, folder)
    said = json.loads(published(hub)["publication.json"])
    assert said.pop("format_version") == 1
    hub.commit(NAME, {"publication.json": json.dumps(said).encode(), "vocab.txt": b"the user's"})
    other = write_folder(folder.parent / "other", version=1)
    write_manifest(other)
    assert push(hub, other).changed
    assert published(hub)["vocab.txt"] == b"the user's"


@pytest.mark.parametrize(
    "listed",
    [
        [1],
        {"files": []},
        {"files": {"config.json": 3}},
        {"files": {"config.json": {"sha256": 3}}},
        {"format_version": 9},
    ],
    ids=str,
)
def test_a_list_of_another_shape_is_refused_in_one_line(listed, hub, folder, refused):
    write_manifest(folder)
    push(hub, folder)
    hub.commit(NAME, {"publication.json": json.dumps(listed).encode()})
    other = write_folder(folder.parent / "other", version=1)
    write_manifest(other)
    message = refused(push, hub, other)
    assert "publication.json of user/name" in message
    assert "\n" not in message
    assert push(hub, other, overwrite=True).changed


def test_another_model_where_ours_was_is_not_replaced(hub, folder, refused):
    write_manifest(folder)
    push(hub, folder)
    other = write_folder(folder.parent / "other", version=1)
    write_manifest(other)
    hub.commit(NAME, {"model-00001-of-00002.safetensors": b"by hand"})
    assert "would replace: model-00001-of-00002.safetensors" in refused(push, hub, other)
    hub.commit(NAME, {"config.json": BERT})
    assert "another model (model_type 'bert')" in refused(push, hub, other)
    assert published(hub)["config.json"] == BERT
    hub.commit(NAME, {"config.json": contents(folder)["config.json"], "README.md": b"edited on the web"})
    assert push(hub, other, overwrite=True).changed
    assert published(hub) == contents(other)


def test_an_adapter_of_ours_is_known_and_another_is_not(hub, folder, refused):
    ours = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"w", "processing_hf_clip.py": b"p"}
    hub.commit(NAME, ours | {"README.md": b"r", "tokenizer.json": b"{}", "last-checkpoint/adapter_config.json": b"{}"})
    assert push(hub, folder).changed  # published before there were lists
    assert published(hub) == contents(folder) | {"last-checkpoint/adapter_config.json": b"{}"}


# ---- a Hub that does not answer -----------------------------------------------------------------------------------

SILENT = {
    "whoami": "GET /api/whoami-v2",
    "create": "POST /api/repos/create",
    "info": "GET /api/models/user/name$",
    "tree": "GET /api/models/user/name/tree/",
    "branch": "POST .*/branch/",
    "yaml": "POST /api/validate-yaml",
    "preupload": "POST .*/preupload/",
    "batch": "POST .*/batch",
    "storage": "PUT /storage/",
    "verify": "POST .*/verify",
    "commit": "POST .*/commit/",
}


@pytest.mark.parametrize("endpoint", SILENT)
def test_silence_ends_in_a_line(hub, folder, refused, monkeypatch, endpoint):
    monkeypatch.setattr(hub_calls, "SILENCE", 0.1)
    if endpoint == "tree":
        hub.lacks = {"blob ids"}
    hub.fault(SILENT[endpoint], times=ALWAYS, hang=True)
    begun = time.monotonic()
    message = refused(push, hub, folder, "name", revision="next")
    assert time.monotonic() - begun < 2
    assert re.search("does not answer any more|did not answer .*, twice 0.[12] s long", message), message
    assert "config.json" not in {name for repo in hub.repos.values() for name in repo.head().files}
    hub._faults.clear()
    assert push(hub, folder, "name", revision="next").changed


def test_one_silence_is_ridden_out(hub, folder, monkeypatch):
    monkeypatch.setattr(hub_calls, "SILENCE", 0.1)
    hub.fault("POST .*/preupload/", hang=True)
    hub.fault("PUT /storage/", hang=True)
    assert push(hub, folder).changed
    assert published(hub) == contents(folder)


@pytest.mark.parametrize(
    ("route", "status", "headers"),
    [
        ("GET /api/whoami-v2", 429, {"Retry-After": "3600"}),
        ("GET /api/models/user/name$", 503, {"Retry-After": "3600"}),
        ("POST .*/preupload/", 429, {"Retry-After": " 3600"}),
        ("PUT /storage/", 503, {"Retry-After": "3600"}),
        ("POST .*/batch", 429, {"RateLimit": '"api";r=0;t=3600'}),
    ],
)
def test_an_hour_is_not_waited(hub, folder, refused, monkeypatch, route, status, headers):
    slept = []
    monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", slept.append)
    hub.fault(route, status=status, headers=headers, times=ALWAYS)
    message = refused(push, hub, folder, "name")
    assert f"asks to wait 3600 s ({status} at /" in message
    assert max(slept, default=0) < 60
    hub._faults.clear()
    hub.fault(route, status=status, headers={name: value.replace("3600", "5") for name, value in headers.items()})
    assert push(hub, folder, "name").changed


BUSY = '{"error": "Cannot create repo: another conflicting operation is in progress"}'


def test_a_lasting_conflict_ends_and_a_passing_one_is_waited_out(hub, folder, refused, monkeypatch):
    slept = []
    monkeypatch.setattr(hub_calls.time, "sleep", slept.append)
    hub.fault("POST /api/repos/create", status=409, body=BUSY, times=ALWAYS)
    assert "is busy with another operation of this user (409" in refused(push, hub, folder)
    assert hub.count("POST /api/repos/create") == hub_calls.CREATIONS
    assert slept
    hub._faults.clear()
    hub.fault("POST /api/repos/create", status=409, body=BUSY, times=2)
    assert push(hub, folder).changed


# ---- whose the token is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 429, 503, 502, 408])
def test_a_hub_in_trouble_is_not_one_without_users(hub, folder, refused, status):
    where = {"token": hub.token, "endpoint": hub.endpoint}
    hub.fault("GET /api/whoami-v2", status=status, times=2)
    assert look_first(HubTarget("name", **where)) == NAME
    hub.fault("GET /api/whoami-v2", status=status, times=ALWAYS)
    assert f"is in trouble ({status} at /api/whoami-v2" in refused(look_first, HubTarget("name", **where))
    assert "is in trouble" in refused(push, hub, folder, "name")
    assert look_first(HubTarget(NAME, **where)) == NAME  # who gives the owner needs no answer
    assert not hub.repos


# ---- answers that are none of a Hub's -----------------------------------------------------------------------------

ODD = ["null", "[]", "[null]", '"text"', "7", "{}", "?"]
ODD += ['{"name": null, "sha": 7, "siblings": "text", "url": [], "files": 1, "objects": [[]], "commitUrl": 2}']
ODD += ['{"name": ["x"], "siblings": [null], "url": null, "files": [[]], "objects": null, "commitOid": 1}']
_INFO_OF = '{{"id": "user/name", "sha": "{}", "private": false, "siblings": {}}}'
ODD_INFOS = [
    _INFO_OF.format(sha, siblings)
    for sha, siblings in (
        ("0" * 40, "7"), ("0" * 40, '[{"rfilename": null}]'), ("0" * 40, '[{"rfilename": ["a"]}]'), ("", "[]"),
        ("0" * 40, '[{"rfilename": "config.json", "lfs": {}}]'), ("main", "[]"),
    )
]  # fmt: skip


@pytest.mark.parametrize("body", ODD)
@pytest.mark.parametrize("endpoint", [name for name in SILENT if name not in ("commit", "branch", "storage")])
def test_an_odd_answer_ends_in_a_line_or_does_not_matter(hub, folder, refused, endpoint, body):
    push(hub, write_folder(folder.parent / "old"))
    if endpoint == "tree":
        hub.lacks = {"blob ids"}
    name = "made" if endpoint == "create" else "name"
    old = published(hub)
    folder = write_folder(folder.parent / "new", version=1)
    hub.fault(SILENT[endpoint], status=200, body=body, times=ALWAYS)
    # What is answered to a check of the card, or after a file is stored, says nothing that is needed.
    if endpoint in ("verify", "yaml", "create", "tree"):
        if succeeds(push, hub, folder, name, says="does not answer as a Hub does"):
            assert contents(folder) == published(hub, name=f"user/{name}")
        return
    message = refused(push, hub, folder, name)
    assert re.search("does not answer as a Hub does|cannot be published on|is not on|gives no way", message), message
    assert published(hub) == old


@pytest.mark.parametrize("body", ODD_INFOS)
def test_an_odd_list_of_files_is_none(hub, folder, refused, body):
    push(hub, folder)
    hub.fault("GET /api/models/user/name$", status=200, body=body, times=ALWAYS)
    message = refused(push, hub, write_folder(folder.parent / "new", version=1))
    assert re.search("does not answer as a Hub does|is not on", message)
    assert published(hub) == contents(folder)


@pytest.mark.parametrize("body", ODD)
@pytest.mark.parametrize("settings", [{}, {"revision": "next"}, {"create_pr": True}], ids=str)
def test_a_commit_with_an_odd_answer_is_found(hub, folder, body, settings):
    push(hub, folder)
    new = write_folder(folder.parent / "new", version=1)
    hub.fault("POST .*/branch/", status=200, body=body, handled=True)
    hub.fault("POST .*/commit/", status=200, body=body, handled=True)
    result = push(hub, new, **settings)
    assert (result.changed, result.revision) == (True, hub.repos[NAME].commits[-1].sha)
    assert len(hub.repos[NAME].commits) == 3


@pytest.mark.parametrize("body", ODD)
def test_a_commit_with_an_odd_answer_that_was_not_made_is_none(hub, folder, refused, body):
    push(hub, folder)
    hub.fault("POST .*/commit/", status=200, body=body)
    assert "does not answer" in refused(push, hub, write_folder(folder.parent / "new", version=1))
    assert published(hub) == contents(folder)


@pytest.mark.parametrize("body", ODD)
def test_odd_pull_requests_and_files_hinder_nothing(hub, folder, refused, body):
    push(hub, folder)
    new = write_folder(folder.parent / "new", version=1)
    hub.fault("GET .*/discussions", status=200, body=body, times=ALWAYS)
    assert push(hub, new, create_pr=True).changed
    hub.fault("GET .*/resolve/", status=200, body=body, times=ALWAYS)
    assert "holds another model" in refused(push, hub, new)


@pytest.mark.parametrize("body", ["null", "[]", '"text"'])
def test_a_refusal_with_an_odd_body_is_one(hub, folder, refused, body):
    hub.fault("POST .*/commit/", status=403, body=body)
    assert "may not write to user/name" in refused(push, hub, folder)
    hub.fault("POST .*/preupload/", status=500, body=body, times=ALWAYS)
    assert "is in trouble (500" in refused(push, hub, folder)


def test_why_a_file_did_not_go_up_is_told(hub, folder, refused):
    hub.part_size = 3_000
    hub.fault("PUT /storage/[^/]*/", status=200, body="", times=ALWAYS)  # without the ETag of a part
    message = refused(push, hub, folder)
    assert "Error while uploading" in message
    assert "Invalid etag" in message


def test_a_file_that_the_storage_lost_is_not_taken_for_a_missing_repository(hub, folder, refused):
    hub.fault("PUT /storage/", status=200, body="", times=ALWAYS)
    message = refused(push, hub, folder)
    assert "did not arrive whole" in message
    assert "is not on" not in message


# ---- in a process of its own --------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_process_is_bounded_and_knows_no_token_by_name(hub, folder, refused, in_a_process, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    seen = []

    def look():
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if b"hub_client" in (entry / "cmdline").read_bytes():
                    seen.append((entry / "cmdline").read_bytes() + (entry / "environ").read_bytes())

    hub.fault("GET /api/models", before=look)
    hub.fault("POST .*/preupload/", hang=True)
    begun = time.monotonic()
    message = refused(push, hub, folder, timeout=3)
    assert time.monotonic() - begun < 4
    assert "took longer than 3 s, and was left while uploading" in message
    assert seen
    assert not any(hub.token.encode() in each for each in seen)
    assert not hub_process._running
    assert push(hub, folder).changed
    assert published(hub) == contents(folder)


def test_a_drip_is_bounded(folder, refused, in_a_process):
    """Each byte comes in time; the whole never."""
    ended = threading.Event()

    def drip(listening):
        connection = listening.accept()[0]
        with suppress(OSError), connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not ended.wait(0.05):
                connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=drip, args=(listening,), daemon=True).start()
        hub = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert "took longer than 2 s" in refused(
            push_folder, folder, HubTarget(NAME, endpoint=hub, token="hf_planted", timeout=2)
        )
        ended.set()


def test_ctrl_c_ends_it_at_once_and_the_bar_ends_its_line(hub, folder, in_a_process, monkeypatch):
    """While files go up, in threads that wait for the storage."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    pressed = []

    def press():
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    hub.fault("PUT /storage/", times=ALWAYS, hang=True)
    hub.fault("POST .*/batch", before=lambda: threading.Timer(0.5, press).start())
    with pytest.raises(KeyboardInterrupt):
        push(hub, folder)
    assert time.monotonic() - pressed[0] < 1
    assert not hub_process._running
    assert "Upload" in screen.getvalue()
    assert screen.getvalue().endswith("\n")
    assert_no_secrets(screen.getvalue())


def test_the_process_ends_with_who_asked(hub, folder):
    """Also where that was killed: its end of the pipe is closed then."""
    hub.fault("GET /api/whoami-v2", hang=True)
    question = {"ask": "look", "hub": hub.endpoint, "token": hub.token, "target": {"repo_id": NAME}, "kinds": {}}
    with hub_process._process(hub.endpoint) as process:
        process.stdin.write(json.dumps(question).encode() + b"\n")
        process.stdin.flush()
        assert b"whose the token is" in process.stdout.readline()
        process.stdin.close()
        assert process.wait(2) == 1


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_time_that_is_none(hub, folder, refused, timeout):
    assert "is no time" in refused(push, hub, folder, timeout=timeout)
