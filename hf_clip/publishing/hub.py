"""Pushes a folder that is ready to the Hub: one atomic commit, none where nothing changed, one line where it fails."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_token

from ..core.errors import InputError
from ..core.families import families, model_types
from ..core.json_files import read_json
from .hub_process import GivenUp, OutOfTime, ask_in_a_process

_A_QUESTION = 120.0  # seconds that a question may take at most which sends no files
_A_PUSH, _BYTES_A_SECOND = 600.0, 100_000  # and one that does: so many and one more for so many bytes


@dataclass(frozen=True)
class HubTarget:
    """Where a publication goes, and how.

    Args:
        repo_id: "namespace/name", or "name" for one of the token's user.
        private: for a new repository; one that is there and public is refused.
        revision: a branch; default: main.
        create_pr: proposes the commit to that branch.
        overwrite: of whatever is there, files by the names that hf_clip uses (`hub_contents.OURS`) are replaced or
            removed, whoever put them there; others stay.
        token: default: that of `hf auth login` or HF_TOKEN.
        endpoint: default: HF_ENDPOINT, or the Hub itself.
        timeout: seconds that the push may take in all; default: ten minutes, and a second for each 100 kB.
    """

    repo_id: str
    private: bool = False
    revision: str | None = None
    create_pr: bool = False
    overwrite: bool = False
    token: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    timeout: float | None = None

    @property
    def hub(self) -> str:
        return (self.endpoint or constants.ENDPOINT).rstrip("/")


@dataclass(frozen=True)
class Publication:
    """
    Attributes:
        url: of the repository's page, or of the pull request.
        revision: the commit's SHA on the Hub, to be pinned.
        changed: whether there is a new commit: not where the Hub had it all.
        pull_request: its address, where one was asked for.
        files: the bytes of each that was published, by its name.
    """

    url: str
    revision: str
    changed: bool
    pull_request: str | None = None
    files: dict[str, int] = field(default_factory=dict)


def push_folder(folder: str | Path, target: HubTarget, *, commit_message: str = "Publish with hf_clip") -> Publication:
    """Makes a model repository hold what the folder holds, in one commit on top of the head that was read.

    The repository is made where it is not there, and the branch. Files of an earlier publication that the folder has
    no longer go in the same commit; whatever else is in the repository stays. Run again after a failure it goes on;
    run again after a success it changes nothing. The folder is only read.

    A repository that holds anything but a publication of ours (or README, license, .gitattributes, .gitignore) is
    refused; so is, beside a publication of ours, replacing a file that it did not leave there so. `publication.json`
    says what it left (`hub_contents.write_manifest`).

    Raises:
        InputError: for whatever goes wrong. The branch is then what it was before; where the very answer to the
            commit was lost, and the Hub cannot be asked, perhaps what it should become; never something between.
    """
    folder = Path(folder).absolute()
    files = file_sizes(folder)
    timeout = _A_PUSH + sum(files.values()) / _BYTES_A_SECOND if target.timeout is None else target.timeout
    return Publication(
        **_ask("push", target, timeout, {"folder": str(folder), "message": commit_message}), files=files
    )


def look_first(target: HubTarget) -> str:
    """The name with its namespace, which for a bare one is the token's user; before any work that could be in vain.

    Nothing is made. A bare name stays as it is where a Hub says (by 404) that it knows no users.

    Raises:
        InputError: there is no token, or one that the Hub does not take or that only reads; the repository is public
            where a private one is wanted, or would be refused by `push_folder`; the Hub cannot be asked.
    """
    return _ask("look", target, _short(target.timeout))


def open_repository(target: HubTarget) -> str:
    """As `look_first`, and makes the repository where it is not there."""
    return _ask("open", target, _short(target.timeout))


def file_sizes(folder: Path) -> dict[str, int]:
    """The bytes of each file that a folder holds, by its name from there on."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}


def _kinds(folder: str | None) -> dict[str, Any]:
    """The families that are known, for the process that asks, which knows none; of a folder's model only its own."""
    own = read_json(Path(folder, "config.json")).get("model_type") if folder else None
    known = model_types()
    files = [pattern for family in families() for pattern in family.files]
    return {"model_types": [own] if own in known else known, "files": files}


def _short(timeout: float | None) -> float:
    return _A_QUESTION if timeout is None else min(timeout, _A_QUESTION)


def _ask(ask: str, target: HubTarget, timeout: float, about: dict[str, str] | None = None) -> Any:
    """
    Raises:
        InputError: what went wrong, in one line, and how to fix it; without the token and signed addresses.
    """
    hub = target.hub
    if not timeout > 0:
        raise InputError(f"timeout {timeout:g} is no time: give seconds above 0")
    if constants.is_offline_mode():
        raise InputError(
            f"{hub} cannot be asked while HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set: unset it, then run again"
        )
    secret, about = check_token(target.token, hub), about or {}
    kinds = _kinds(about.get("folder"))
    asked = {name: getattr(target, name) for name in ("repo_id", "private", "revision", "create_pr", "overwrite")}
    question = {"ask": ask, "hub": hub, "token": secret, "target": asked, "kinds": kinds}
    try:
        said = ask_in_a_process(question | about, timeout)
    except GivenUp as doing:
        raise InputError(f"the push to {target.repo_id} was given up while {doing}: push again") from None
    except OutOfTime as doing:
        unknown = "; it may have been made, which running again tells" if "committing" in str(doing) else ""
        raise InputError(
            f"{hub} took longer than {timeout:g} s, and was left while {doing}{unknown}: check the network, then run "
            "again (what is up already is not sent again), or with a longer timeout"
        ) from None
    if "error" in said:
        raise InputError(said["error"])
    return said["result"]


def check_token(token: str | None = None, hub: str | None = None) -> str:
    """The token, or that of `hf auth login` or HF_TOKEN.

    Raises:
        InputError: there is none, or one that cannot be.
    """
    token = (token or get_token() or "").strip()
    if not token:
        raise InputError(f"there is no token for {hub or constants.ENDPOINT}: `hf auth login`, or set HF_TOKEN")
    if not re.fullmatch("[!-~]+", token):  # httpx would show it in its complaint
        raise InputError("the token holds characters that no token has: copy it once more")
    return token
