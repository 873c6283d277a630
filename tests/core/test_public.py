"""What must not be told in public: by hand, name by name and sentence by sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

from hf_clip.core import public
from hf_clip.core.errors import InputError
from hf_clip.core.public import (
    is_path,
    public_facts,
    public_name,
    refuse_secrets,
    skipped_in_public,
    without_folders,
    without_secrets,
)

TOKEN = "hf_" + "Planted" * 5


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    (tmp_path / "team" / "birds").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("google-bert/bert-base-uncased", "google-bert/bert-base-uncased"),
        ("scratch/resnet-10", "scratch/resnet-10"),
        ("", ""),
        ("team/birds", "birds"),  # is a folder here
        ("team/robins", "team/robins"),
        ("/mnt/disk/jane/birds", "birds"),
        ("/mnt/disk/jane/my birds/", "my birds"),
        (r"C:\Users\jane\birds", "birds"),
        ("~/birds", "birds"),
        ("~jane/birds", "birds"),
        ("./nowhere/birds", "birds"),
        ("team/birds/..", "team"),
        ("scratch//home/jane/tower", "scratch/tower"),
        ("scratch/~/tower", "scratch/tower"),
        ("x" * 5000, "x" * 5000),
    ],
)
def test_a_name_is_told_without_where_it_lies(name, told, here):
    assert public_name(name) == told
    assert is_path(name) == (name != told and not name.startswith("scratch/"))


def test_the_folder_that_one_stands_in_has_a_name(here):
    assert public_name(".") == here.name
    assert public_name("..") == here.parent.name


def test_settings_keep_all_but_folders():
    settings = {
        "file": "/data/jane/resnet.pth",
        "names": ["a/b", "/", "/x", r"D:\jane\x.pth"],
        "text": "/a/b\n/c/d",
        "n": 3,
    }
    assert without_folders(settings) == settings | {"file": "resnet.pth", "names": ["a/b", "/", "/x", "x.pth"]}


def test_facts_are_told_without_tokens_folders_and_secret_settings(here):
    folder = here / "team" / "birds"
    facts = {
        "hub_token": "anything",
        "note": f"by {TOKEN}",
        "names": ["hf_clip_publication", f"data: {folder}"],
        "description": f"of {folder}, and/or file:///x/y/z.txt, see https://example.org{folder}",
        "nan": float("nan"),
        "value": 0.5,
    }
    assert public_facts(facts, ("description",)) == {
        "note": "by …",
        "names": ["hf_clip_publication", "data: birds"],
        "description": f"of birds, and/or z.txt, see https://example.org{folder}",
        "nan": None,
        "value": 0.5,
    }


def test_what_was_skipped_is_told_without_its_folder_and_so_is_the_reason():
    skipped = [[3, "/home/jane/3.png", "cannot open /home/jane/3.png"], [4, "4.png", "the file is empty"]]
    assert skipped_in_public(skipped) == [[3, "3.png", "cannot open 3.png"], skipped[1]]


def test_what_is_said_holds_no_token_no_password_and_no_signature():
    said = f"{TOKEN}: https://jane:secret@host/a?X-Amz-Signature=1 failed, see http://host/b"
    assert without_secrets(said, TOKEN) == "(token): https://host/a failed, see http://host/b"
    assert without_secrets("no token", "") == "no token"


@pytest.mark.parametrize("before", ["", "see ", "file://", "path:", "(", "`"])
def test_a_path_of_this_machine_is_refused(before, here):
    (here / "staged").mkdir()
    source = here / "team" / "birds"
    (here / "staged" / "report.md").write_text(f"{before}{here}/pictures")
    with pytest.raises(InputError, match=r"report.md would tell of \S+pictures on this machine"):
        refuse_secrets(here / "staged", source)
    (here / "staged" / "report.md").write_text(f"https://example.org{here}/pictures, and/or so")
    refuse_secrets(here / "staged", source)


def test_a_token_is_refused_wherever_it_stands(here):
    (here / "staged" / "deep").mkdir(parents=True)
    (here / "staged" / "deep" / ".env").write_text(f"HF_TOKEN={TOKEN}")
    with pytest.raises(InputError, match=r"deep/.env would hold an access token") as caught:
        refuse_secrets(here / "staged", here)
    assert TOKEN not in str(caught.value)
    (here / "staged" / "deep" / ".env").write_text("a-token-of-another-kind")
    refuse_secrets(here / "staged", here)
    with pytest.raises(InputError, match=r"deep/.env would hold an access token"):
        refuse_secrets(here / "staged", here, "a-token-of-another-kind")


def test_it_needs_no_torch():
    """The process that speaks to the Hub imports it."""
    package = Path(public.__file__).parents[1]
    program = (
        "import sys, types; sys.modules['hf_clip'] = hf_clip = types.ModuleType('hf_clip')\n"
        f"hf_clip.__path__ = [{str(package)!r}]\n"
        "import hf_clip.core.public; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
