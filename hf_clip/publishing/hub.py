"""Pushes a folder that is ready to the Hub: one atomic commit, none where nothing changed, one line where it fails."""

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile, RepoSibling
from huggingface_hub.utils import DEFAULT_IGNORE_PATTERNS, filter_repo_objects
from huggingface_hub.utils.sha import git_hash

from ..configuration_hf_clip import HFClipConfig
from ..errors import InputError

# What a publication consists of: where the folder has such a file no longer, that of an earlier publication goes.
OURS = (
    "config.json", "generation_config.json", "training.json", "*_hf_clip.py", "pictures/*", "evaluation/*", "onnx/*",
    "model*.safetensors", "model.safetensors.index.json", "adapter_config.json", "adapter_model*.safetensors",
    "processor_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.*", "vocab.txt", "vocab.json", "merges.txt",
    "spiece.model", "tokenizer.model", "sentencepiece.bpe.model",
    "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json",
)  # fmt: skip

# The client's own errors and those of its connection, of hf_xet, and of an answer that lacks what it should hold.
_FAILURES = (HTTPError, OSError, ValueError, RuntimeError, LookupError)
_AGAIN = "run the same command again: what is up already is not sent again"
_REFUSALS = {
    401: "{hub} does not take the token ({said}): it is wrong or has expired: `hf auth login`, or set HF_TOKEN anew",
    403: "the token may not write to {repo} on {hub} ({said}): use one with write access, or open a pull request",
    404: "{repo} is not on {hub}, or the token may not see it ({said}): check the name, the token and HF_ENDPOINT",
    412: "someone else has committed to {repo}, and nothing was published ({said}): look at that, then run again",
}
# At WARNING and INFO these name addresses; those of LFS storage are signed, and whoever has the signature may write.
_LOGGERS = ("huggingface_hub.utils._http", "httpx2", "httpx")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Publication:
    """
    Attributes:
        url: of the repository's page, or of the pull request.
        revision: the commit's SHA on the Hub, to be pinned.
        changed: whether there is a new commit: not where the Hub had it all.
        pull_request: its address, where one was asked for.
    """

    url: str
    revision: str
    changed: bool
    pull_request: str | None = None


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str = "Publish with hf_clip",
    token: str | None = None,
    endpoint: str | None = None,
) -> Publication:
    """Makes a model repository hold what the folder holds, in one commit on top of the head that was read.

    The repository is made where it is not there, and the branch. Files of an earlier publication that the folder has
    no longer (`OURS`) go in the same commit; whatever else is in the repository stays. Run again after a failure it
    goes on; run again after a success it changes nothing. The folder is only read.

    Args:
        repo_id: "namespace/name", or "name" for one of the token's user.
        private: for a new repository; one that is there and public is refused.
        revision: a branch; default: main.
        create_pr: proposes the commit to that branch.
        token: default: that of `hf auth login` or HF_TOKEN.
        endpoint: default: HF_ENDPOINT, or the Hub itself.

    Raises:
        InputError: for whatever goes wrong. The branch is then what it was before; where the very answer to the
            commit was lost, and the Hub cannot be asked, perhaps what it should become; never something between.
    """

    def push(api: HfApi) -> Publication:
        return _push(api, _additions(Path(folder)), repo_id, private, revision, create_pr, commit_message)

    return _ask(push, repo_id, token, endpoint)


def open_repository(
    repo_id: str, *, private: bool | None = False, token: str | None = None, endpoint: str | None = None
) -> str:
    """Makes a model repository where it is not there; its name with the namespace.

    Raises:
        InputError: as `push_folder`.
    """
    return _ask(lambda api: _open(api, repo_id, bool(private))[0], repo_id, token, endpoint)


def full_name(repo_id: str, *, token: str | None = None, endpoint: str | None = None) -> str:
    """The name with its namespace, which for a bare name is the token's user. Nothing is made.

    Raises:
        InputError: as `push_folder`; not where a Hub knows no users: the name is then given back as it is.
    """
    if "/" in repo_id:
        return repo_id

    def name(api: HfApi) -> str:
        try:
            return f"{api.whoami()['name']}/{repo_id}"
        except HfHubHTTPError as error:
            if error.response.status_code == 401:
                raise
            return repo_id

    return _ask(name, repo_id, token, endpoint)


# ---- the push -----------------------------------------------------------------------------------------------------


def _push(
    api: HfApi,
    additions: list[CommitOperationAdd],
    repo_id: str,
    private: bool,
    revision: str | None,
    create_pr: bool,
    message: str,
) -> Publication:
    name, main = _open(api, repo_id, private)
    head = _head(api, name, main, revision, create_pr)
    there = _files(api, name, head)
    operations = _operations(additions, there)
    page = f"{api.endpoint}/{name}" + (f"/tree/{revision}" if revision not in (None, "main") else "")
    if not operations:
        return Publication(page, head.sha, changed=False)
    if create_pr and (proposed := _proposed(api, name, message, additions)):
        return proposed
    if any(operation.path_in_repo == "config.json" for operation in operations) and "config.json" in there:
        _check_kind(api, name, head)
    try:
        commit = api.create_commit(
            name,
            operations,
            commit_message=message,
            revision=revision,
            create_pr=create_pr,
            parent_commit=head.sha or None,
        )
    except _FAILURES:
        # The client does not repeat this request, for a commit may have been made whose answer was lost.
        if create_pr and (proposed := _proposed(api, name, message, additions)):
            return Publication(proposed.url, proposed.revision, changed=True, pull_request=proposed.url)
        if not create_pr and (sha := _landed(api, name, revision, head, additions)):
            return Publication(page, sha, changed=True)
        raise
    return Publication(commit.pr_url or page, commit.oid, commit.oid != head.sha, commit.pr_url)


def _additions(folder: Path) -> list[CommitOperationAdd]:
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    names = list(filter_repo_objects(files, ignore_patterns=DEFAULT_IGNORE_PATTERNS))
    if not names:
        raise InputError(f"{folder} holds no files: give the folder that is to be published")
    return [CommitOperationAdd(name, files[name]) for name in names]


def _open(api: HfApi, repo_id: str, private: bool) -> tuple[str, ModelInfo]:
    """The repository's full name and what its main branch holds."""
    info = _info(api, repo_id) if "/" in repo_id else None
    if info is None:
        # `None`: as the organisation has it by default.
        repo_id = api.create_repo(repo_id, private=private or None, exist_ok=True).repo_id
        info = api.model_info(repo_id, files_metadata=True)
    if private and info.private is False:
        raise InputError(f"{repo_id} is there already and is public: make it private first, or give another name")
    return repo_id, info


def _info(api: HfApi, name: str, revision: str | None = None) -> ModelInfo | None:
    try:
        return api.model_info(name, revision=revision, files_metadata=True)
    except HfHubHTTPError as error:
        # The Hub says 401 of what is not there to some, and not every Hub says in a header what it is that is not.
        if not isinstance(error, RepositoryNotFoundError) and error.response.status_code != 404:
            raise
        return None


def _head(api: HfApi, name: str, main: ModelInfo, revision: str | None, create_pr: bool) -> ModelInfo:
    """What the branch holds; a new one what main holds."""
    if revision in (None, "main"):
        return main
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        raise InputError(f"revision {revision} is a commit, which nothing can be added to: give a branch")
    head = _info(api, name, revision)
    if head is None and create_pr:
        raise InputError(f"{name} has no branch {revision!r} to open a pull request to: give one that it has")
    if head is None:
        api.create_branch(name, branch=revision, revision=main.sha, exist_ok=True)
    return head or main


def _files(api: HfApi, name: str, head: ModelInfo) -> dict[str, RepoSibling | RepoFile]:
    """The files of a commit, with their sizes and digests where the Hub tells them."""
    files: dict[str, RepoSibling | RepoFile] = {file.rfilename: file for file in head.siblings or []}
    if not files or any(file.blob_id is None for file in files.values()):
        with suppress(*_FAILURES):  # not every Hub lists trees either; the client then asks before it uploads
            tree = list(api.list_repo_tree(name, recursive=True, revision=head.sha))
            return {file.path: file for file in tree if isinstance(file, RepoFile)}
    return files


def _operations(
    additions: list[CommitOperationAdd], there: dict[str, RepoSibling | RepoFile]
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """What makes of the files that are there those of the folder; empty where nothing has changed."""
    names = {addition.path_in_repo for addition in additions}
    changed = [addition for addition in additions if not _is_same(addition, there.get(addition.path_in_repo))]
    gone = [CommitOperationDelete(name, is_folder=False) for name in there if name not in names and _is_ours(name)]
    return [*changed, *gone]


def _is_same(addition: CommitOperationAdd, file: RepoSibling | RepoFile | None) -> bool:
    if file is None or file.size not in (None, addition.upload_info.size):
        return False
    if file.lfs:
        return file.lfs.sha256 == addition.upload_info.sha256.hex()
    with addition.as_file() as content:
        return file.blob_id == git_hash(content.read())


def _is_ours(name: str) -> bool:
    """Of what lies in folders only that of folders which are ours: a pattern's `*` also takes slashes."""
    return any(fnmatchcase(name, pattern) for pattern in OURS if "/" in pattern or "/" not in name)


def _check_kind(api: HfApi, name: str, head: ModelInfo) -> None:
    with TemporaryDirectory() as folder:
        file = api.hf_hub_download(name, "config.json", revision=head.sha, local_dir=folder)
        try:
            config: Any = json.loads(Path(file).read_text(encoding="utf-8"))
        except ValueError:
            config = None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != HFClipConfig.model_type:
        raise InputError(f"{name} holds another model (model_type {kind!r}): give another name, or empty it first")


def _proposed(api: HfApi, name: str, message: str, additions: list[CommitOperationAdd]) -> Publication | None:
    """The open pull request of this title that holds all this already."""
    with suppress(*_FAILURES):  # a Hub may take pull requests and not list them
        for pull in api.get_repo_discussions(name, discussion_type="pull_request", discussion_status="open"):
            if pull.title == message:
                head = api.model_info(name, revision=pull.git_reference, files_metadata=True)
                if not _operations(additions, _files(api, name, head)):
                    return Publication(pull.url, head.sha, changed=False, pull_request=pull.url)
    return None


def _landed(
    api: HfApi, name: str, revision: str | None, before: ModelInfo, additions: list[CommitOperationAdd]
) -> str | None:
    """The branch's new head, if that holds what was to be published."""
    with suppress(*_FAILURES):
        head = api.model_info(name, revision=revision, files_metadata=True)
        if head.sha != before.sha and not _operations(additions, _files(api, name, head)):
            return head.sha
    return None


# ---- what goes wrong ----------------------------------------------------------------------------------------------


def _ask(question: Callable[[HfApi], _T], repo_id: str, token: str | None, endpoint: str | None) -> _T:
    """
    Raises:
        InputError: what went wrong, in one line, and how to mend it; without the token and signed addresses.
    """
    hub = (endpoint or constants.ENDPOINT).rstrip("/")
    secret = ""
    try:
        secret = _check_token(token or get_token(), hub)
        with _logs_without_secrets(secret):
            return question(HfApi(hub, secret))
    except InputError:
        raise
    except _FAILURES as error:
        message = _without_secrets(_explain(error, hub, repo_id), secret)
    # Not in the handler: the client's errors hold requests, with the token, and would hang on as the context.
    raise InputError(message)


def _check_token(token: str | None, hub: str) -> str:
    token = (token or "").strip()
    if not token:
        raise InputError(f"there is no token for {hub}: `hf auth login`, or set HF_TOKEN")
    if not re.fullmatch("[!-~]+", token):  # httpx would show it in its complaint
        raise InputError("the token holds characters that no token has: copy it once more")
    return token


def _explain(error: BaseException, hub: str, repo: str) -> str:
    cause = _told_by_the_connection(error)
    said = " ".join(str(cause).split())[:300]
    if isinstance(cause, OfflineModeIsEnabled):
        return f"{hub} cannot be asked while HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set: unset it, then run again"
    if isinstance(cause, HfHubHTTPError):
        return _explain_status(cause, hub, repo)
    if isinstance(cause, HTTPError):
        return f"the connection to {hub} fails ({said or type(cause).__name__}): check the network, then {_AGAIN}"
    if type(cause) is ConnectionError or type(cause).__module__.startswith("hf_xet"):
        return _explain_xet(said, hub, repo)
    if isinstance(cause, (LookupError, json.JSONDecodeError)):
        return (
            f"{hub} does not answer as a Hub does ({type(cause).__name__}: {said}): check HF_ENDPOINT, then {_AGAIN}"
        )
    return f"{repo} cannot be published on {hub}: {said}"


def _told_by_the_connection(error: BaseException) -> BaseException:
    """Of an error and its causes the first that the client's connection raised; else the error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, (HTTPError, OfflineModeIsEnabled)):
        cause = cause.__cause__
    return cause or error


def _explain_status(error: HfHubHTTPError, hub: str, repo: str) -> str:
    status = error.response.status_code
    message = " ".join((error.server_message or "").split())[:200]
    # Storage answers in XML, with keys in it.
    said = f"{status} at {error.response.url.path}" + (f": {message}" if message and message[0] != "<" else "")
    if status in _REFUSALS:
        return _REFUSALS[status].format(hub=hub, repo=repo, said=said)
    if status >= 500 or status in (408, 429):
        return f"{hub} is in trouble ({said}): wait a little, then {_AGAIN}"
    return f"{hub} refuses to publish {repo} ({said}): mend that, then {_AGAIN}"


def _explain_xet(said: str, hub: str, repo: str) -> str:
    status = re.search(r"\((401|403) ", said)
    if status:
        return _REFUSALS[int(status[1])].format(hub=hub, repo=repo, said=said)
    return f"{hub} gives no way to its Xet storage ({said}): run again, or set HF_HUB_DISABLE_XET=1 to upload by LFS"


def _without_secrets(text: str, token: str) -> str:
    """No token, no name and password before a host, no query of an address."""
    text = text.replace(token, "(token)") if token else text
    return re.sub(r"(https?://)[^\s/@'\"]+@", r"\1", re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]*", r"\1", text))


@contextmanager
def _logs_without_secrets(token: str) -> Iterator[None]:
    def clean(record: logging.LogRecord) -> bool:
        record.msg, record.args = _without_secrets(record.getMessage(), token), ()
        return True

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(clean)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(clean)
