"""The questions to the Hub: whose the token is, what is there, and a push: one atomic commit, none where none is due.

`hub_process` runs them in a process of its own: of hf_clip this imports its siblings `hub_*`, and of `core` only
`errors`, `public` and `records`.
"""

import json
import os
import re
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import DEFAULT_IGNORE_PATTERNS, filter_repo_objects

from ..core.errors import InputError
from ..core.public import without_secrets
from .hub_calls import AGAIN, FAILURES, Stumbled, asked, bounded, called
from .hub_contents import File, Head, Kinds, digests, head_of, is_sha, left_by_us, refuse_to_replace
from .hub_errors import REFUSALS, explain, logs_without_secrets

Tell = Callable[[str], object]  # hears what is being done


@dataclass(frozen=True)
class Target:
    """Where a publication goes; as `push_folder` has it."""

    repo_id: str
    private: bool = False
    revision: str | None = None
    create_pr: bool = False
    overwrite: bool = False
    kinds: Kinds = field(default_factory=Kinds)

    @property
    def on_main(self) -> bool:
        return self.revision in (None, "main")


def answer(question: dict[str, Any], tell: Tell = lambda doing: None) -> dict[str, object]:
    """
    Args:
        question: ask ("look", "open" or "push"), hub, token, the fields of a `Target` and of its `Kinds`, and what
            the question's function wants.
        tell: hears what is being done.

    Returns:
        {"result": …}, or {"error": one line, without the token and signed addresses}.
    """
    about = dict(question)
    hub, token, target = (
        about.pop("hub"),
        about.pop("token"),
        Target(**about.pop("target"), kinds=Kinds(**about.pop("kinds"))),
    )
    questions: dict[str, Callable[..., object]] = {"look": look, "open": open_repository, "push": push}
    ask = questions[about.pop("ask")]
    try:
        with logs_without_secrets(token), bounded(hub):
            return {"result": ask(HfApi(hub, token), target, tell, **about)}
    except FAILURES as error:
        return {"error": without_secrets(explain(error, hub, target.repo_id), token)}


def look(api: HfApi, target: Target, tell: Tell) -> str:
    """The name with its namespace, where nothing that can be known beforehand speaks against a push; makes nothing."""
    tell("asking whose the token is")
    name = _full_name(api, target.repo_id)
    tell("looking at what the repository holds")
    if "/" in name and (main := head_of(api, name)) is not None:
        _check_private(name, main, target)
        head = (main if target.on_main else _head_of_branch(api, name, target)) or main
        if not target.overwrite:
            left_by_us(api, name, head, target.kinds)
    return name


def open_repository(api: HfApi, target: Target, tell: Tell) -> str:
    """The same; the repository is made where it is not there."""
    name = look(api, target, tell)
    tell("making the repository")
    return _open(api, name, target)[0]


def push(api: HfApi, target: Target, tell: Tell, *, folder: str, message: str) -> dict[str, object]:
    """The fields of a `Publication`."""
    additions = _additions(Path(folder))
    tell("looking at what the repository holds")
    name = target.repo_id if "/" in target.repo_id else _full_name(api, target.repo_id)
    name, main = _open(api, name, target)
    branch = main if target.on_main else _head_of_branch(api, name, target)
    work = _Push(api, name, target, message, additions, branch or main)
    work.decide()
    if branch is None:
        called(lambda: api.create_branch(name, branch=str(target.revision), revision=main.sha, exist_ok=True))
    return work.do(tell)


# ---- the token's user and the repository ----------------------------------------------------------------------------


def _full_name(api: HfApi, repo_id: str) -> str:
    """The name with its namespace, which for a bare one is the token's user; bare where a Hub says that it knows none.

    Raises:
        InputError: the token may only read.
    """
    try:
        who = asked(api.whoami)
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == 404 or ("/" in repo_id and status not in (401, 403)):  # a full name needs no answer
            return repo_id
        raise
    user = who.get("name") if isinstance(who, dict) else None
    if not isinstance(user, str) or not user:
        raise Stumbled("the answer to whoami names no user")
    if _role(who) == "read":
        raise InputError(REFUSALS[403].format(repo=repo_id, hub=api.endpoint, said="it is one that only reads"))
    return repo_id if "/" in repo_id else f"{user}/{repo_id}"


def _role(who: object) -> object:
    for key in ("auth", "accessToken", "role"):
        who = who.get(key) if isinstance(who, dict) else None
    return who


def _open(api: HfApi, name: str, target: Target) -> tuple[str, Head]:
    """The repository's full name and the head of its main branch."""
    main = head_of(api, name) if "/" in name else None
    if main is None:
        try:
            # `None`: as the organization has it by default.
            made = called(lambda: api.create_repo(name, private=target.private or None, exist_ok=True))
            name = name if "/" in name else made.repo_id
        except Stumbled:  # over the answer: the repository may be there all the same
            if "/" not in name or (main := head_of(api, name)) is None:
                raise
        main = main or head_of(api, name)
        if main is None:
            raise InputError(f"{name} was made on {api.endpoint}, and is not there yet: wait a little, then {AGAIN}")
    _check_private(name, main, target)
    return name, main


def _check_private(name: str, main: Head, target: Target) -> None:
    if target.private and main.private is not True:
        raise InputError(f"{name} is there already and is public: make it private first, or give another name")


def _head_of_branch(api: HfApi, name: str, target: Target) -> Head | None:
    """None for a branch that is still to be made."""
    revision = str(target.revision)
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        raise InputError(f"revision {revision} is a commit, which nothing can be added to: give a branch")
    head = head_of(api, name, revision)
    if head is None and target.create_pr:
        raise InputError(f"{name} has no branch {revision!r} to open a pull request to: give one that it has")
    return head


# ---- a push ---------------------------------------------------------------------------------------------------------


@dataclass
class _Push:
    """One publication on its way.

    Attributes:
        head: of the branch that is committed to.
        operations: what makes of its files those of the folder; empty where nothing has changed.
        removed: the names of those that go.
    """

    api: HfApi
    name: str
    target: Target
    message: str
    additions: list[CommitOperationAdd]
    head: Head
    operations: list[CommitOperationAdd | CommitOperationDelete] = field(default_factory=list)
    removed: set[str] = field(default_factory=set)

    def decide(self) -> None:
        """
        Raises:
            InputError: what is there is not ours, or what would be replaced.
        """
        there, names = self.head.files, {addition.path_in_repo for addition in self.additions}
        changed = [each for each in self.additions if not _is_same(each, there.get(each.path_in_repo))]
        gone = {path for path in there if path not in names and self.target.kinds.has(path)}
        if not changed and not gone:
            return
        if not self.target.overwrite:
            ours = left_by_us(self.api, self.name, self.head, self.target.kinds)
            refuse_to_replace(self.name, [each.path_in_repo for each in changed if each.path_in_repo in there], ours)
            gone &= ours
        self.removed = gone
        self.operations = [*changed, *(CommitOperationDelete(path, is_folder=False) for path in sorted(gone))]

    def do(self, tell: Tell) -> dict[str, object]:
        if not self.operations:
            return _publication(self._page, self.head.sha, changed=False)
        if self.target.create_pr and (proposed := self._proposed()):
            return proposed | {"changed": False}
        try:
            return self._commit(tell)
        except FAILURES:
            # The client does not repeat this request, for a commit may have been made whose answer was lost.
            made = self._proposed() if self.target.create_pr else self._landed()
            if made is None:
                raise
            return made

    def _commit(self, tell: Tell) -> dict[str, object]:
        where: dict[str, Any] = {"revision": self.target.revision, "create_pr": self.target.create_pr}
        changed = [operation for operation in self.operations if isinstance(operation, CommitOperationAdd)]
        tell("uploading")
        # Told that there is no .gitignore: by the repository's a Hub would leave files out, and nobody would know.
        called(
            lambda: self.api.preupload_lfs_files(self.name, changed, gitignore_content="", free_memory=False, **where)
        )
        tell("committing")
        commit = called(
            lambda: self.api.create_commit(
                self.name, self.operations, commit_message=self.message, parent_commit=self.head.sha, **where
            )
        )
        if not is_sha(commit.oid) or not isinstance(commit.pr_url, str | None):
            raise Stumbled("the answer to the commit names none")
        return _publication(commit.pr_url or self._page, commit.oid, commit.oid != self.head.sha, commit.pr_url)

    @property
    def _page(self) -> str:
        return f"{self.api.endpoint}/{self.name}" + ("" if self.target.on_main else f"/tree/{self.target.revision}")

    def _proposed(self) -> dict[str, object] | None:
        """The open pull request of this title that holds all this already."""
        with suppress(*FAILURES):  # a Hub may take pull requests and not list them
            wanted: dict[str, Any] = {"discussion_type": "pull_request", "discussion_status": "open"}
            for pull in called(lambda: list(self.api.get_repo_discussions(self.name, **wanted))):
                head = head_of(self.api, self.name, pull.git_reference) if pull.title == self.message else None
                if head and self._is_held_by(head):
                    return _publication(pull.url, head.sha, changed=True, pull_request=pull.url)
        return None

    def _landed(self) -> dict[str, object] | None:
        """The branch, if it has a new head that holds what was to be published."""
        with suppress(*FAILURES):
            head = head_of(self.api, self.name, self.target.revision)
            if head and head.sha != self.head.sha and self._is_held_by(head):
                return _publication(self._page, head.sha, changed=True)
        return None

    def _is_held_by(self, head: Head) -> bool:
        same = all(_is_same(addition, head.files.get(addition.path_in_repo)) for addition in self.additions)
        return same and not self.removed & head.files.keys()


def _publication(url: str, revision: str, changed: bool, pull_request: str | None = None) -> dict[str, object]:
    return {"url": url, "revision": revision, "changed": changed, "pull_request": pull_request}


def _additions(folder: Path) -> list[CommitOperationAdd]:
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    names = list(filter_repo_objects(files, ignore_patterns=DEFAULT_IGNORE_PATTERNS))
    if not names:
        raise InputError(f"{folder} holds no files: give the folder that is to be published")
    return called(lambda: [CommitOperationAdd(name, files[name]) for name in names])


def _is_same(addition: CommitOperationAdd, file: File | None) -> bool:
    if file is None or file.size not in (None, addition.upload_info.size):
        return False
    if file.sha256:
        return file.sha256 == addition.upload_info.sha256.hex()
    return file.blob_id is not None and file.blob_id == digests(Path(str(addition.path_or_fileobj))).blob_id


# ---- as a process ---------------------------------------------------------------------------------------------------


def main() -> None:
    """Reads a question from stdin, says on stdout what it is doing, and at last the answer."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    question = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()

    def say(what: dict[str, object]) -> None:
        channel.write(json.dumps(what) + "\n")
        channel.flush()

    say(answer(question, lambda doing: say({"doing": doing})))
    sys.stderr.flush()
    os._exit(0)  # not waiting for threads of an upload that hangs


def _end_with_stdin() -> None:
    """Whoever asked keeps it open, and is gone when it ends, however that came."""
    sys.stdin.buffer.read()
    os._exit(1)
