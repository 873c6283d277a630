"""What a repository holds, which of its files an earlier publication left, and what is refused for the others."""

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import HfApi, ModelInfo, hf_hub_url
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile, RepoSibling
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

from ..core.errors import InputError
from ..core.records import Record
from .hub_calls import Stumbled, asked, called

MANIFEST = "publication.json"  # what of a repository hf_clip has put there
# What a publication consists of: where the folder has such a file no longer, that of an earlier publication goes.
OURS = (
    MANIFEST, "config.json", "generation_config.json", "training.json", "*_hf_clip.py", "pictures/*", "evaluation/*",
    "onnx/*", "model*.safetensors", "model.safetensors.index.json",
    "adapter_config.json", "adapter_model*.safetensors",
    "processor_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.*", "vocab.txt", "vocab.json", "merges.txt",
    "spiece.model", "tokenizer.model", "sentencepiece.bpe.model",
)  # fmt: skip
_ADAPTERS = ("adapter_config.json", "adapter_model*.safetensors")
_CHECKPOINTS = re.compile(r"(last-checkpoint|checkpoint-\d+)/")  # what a run pushes to resume from
ANYBODYS = re.compile(r"(readme|licen[cs]e|copying|notice)[^/]*|\.gitattributes|\.gitignore", re.IGNORECASE)
# How a repository that is not ours is called in a refusal, by the first of these that it has.
_KINDS = {
    "modules.json": "a sentence-transformers model",
    "model_index.json": "a diffusers pipeline",
    "adapter_config.json": "an adapter",
    "config.json": "another model",
    "*.gguf": "GGUF weights",
    "*.onnx": "an ONNX model",
    "*.safetensors": "weights",
    "*.bin": "weights",
    "*.pt": "weights",
    "*.pth": "weights",
    "*.h5": "weights",
    "*.msgpack": "weights",
    "tokenizer*": "a tokenizer",
    "vocab*": "a tokenizer",
    "*": "files that hf_clip did not put there",
}


@strict
@dataclass
class Digests(Record):
    """Both by which a Hub tells of a file: git's own, and of what is in LFS or Xet the SHA-256."""

    blob_id: str | None = None
    sha256: str | None = None


@strict
@dataclass
class PublishedFiles(Record):
    """What a publication has left, as `publication.json` lists it: by path."""

    version = 1

    published_with: str = "hf_clip"
    files: dict[str, Digests] = field(default_factory=dict)


@dataclass(frozen=True)
class Kinds:
    """What may be published: of the families, of which the process that asks the Hub knows only this.

    Args:
        model_types: a repository with another model is somebody's.
        files: patterns of what a publication consists of beside `OURS`.
    """

    model_types: Collection[str] = ()
    files: Collection[str] = ()

    def has(self, path: str) -> bool:
        return _is_named_by(path, (*OURS, *self.files))


@dataclass(frozen=True)
class File:
    """What the Hub tells of a file: its size and digests, as far as it does."""

    size: int | None = None
    blob_id: str | None = None
    sha256: str | None = None

    def is_known(self) -> bool:
        return self.blob_id is not None or self.sha256 is not None


@dataclass(frozen=True)
class Head:
    """The last commit of a branch."""

    sha: str
    private: bool | None
    files: dict[str, File]


def head_of(api: HfApi, name: str, revision: str | None = None) -> Head | None:
    """The head of a branch, by default main; None where there is no such repository or branch."""
    try:
        info: ModelInfo = asked(lambda: api.model_info(name, revision=revision, files_metadata=True))
    except HfHubHTTPError as error:
        # The Hub says 401 of what is not there to some, and not every Hub says in a header what it is that is not.
        if not isinstance(error, RepositoryNotFoundError) and error.response.status_code != 404:
            raise
        return None
    if not is_sha(info.sha):
        raise Stumbled(f"the answer about {name} names no commit")
    return Head(str(info.sha), info.private, _files(api, name, info))


def is_sha(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{40}", value) is not None


def _files(api: HfApi, name: str, info: ModelInfo) -> dict[str, File]:
    """The files of a commit; their digests where the Hub tells them."""
    listed: list[tuple[str, RepoSibling | RepoFile]] | None = None
    if info.siblings is not None:
        listed = [(file.rfilename, file) for file in info.siblings]
    if not listed or not all(_file(file).is_known() for _, file in listed):
        try:
            tree = asked(lambda: list(api.list_repo_tree(name, recursive=True, revision=info.sha)))
            listed = [*(listed or []), *((entry.path, entry) for entry in tree if isinstance(entry, RepoFile))]
        except HfHubHTTPError as error:  # not every Hub lists trees; the client then asks before it uploads
            if error.response.status_code != 404 or listed is None:
                raise
    if not all(isinstance(path, str) for path, _ in listed):
        raise Stumbled(f"the answer about {name} has files without a name")
    return {path: _file(told) for path, told in listed}


def _file(told: RepoSibling | RepoFile) -> File:
    return File(told.size, told.blob_id, told.lfs.sha256 if told.lfs else None)


# ---- what an earlier publication left -------------------------------------------------------------------------------


def _is_named_by(path: str, patterns: Collection[str]) -> bool:
    """Of what lies in folders only that of folders which are ours: a pattern's `*` also takes slashes."""
    return any(fnmatchcase(path, pattern) for pattern in patterns if "/" in pattern or "/" not in path)


def left_by_us(api: HfApi, name: str, head: Head, kinds: Kinds) -> set[str]:
    """The files that an earlier publication has left, as it left them.

    Raises:
        InputError: the repository holds none of ours, but other files than anybody's; or a list that is none.
    """
    others = [path for path in head.files if not ANYBODYS.fullmatch(path)]
    if not others:
        return set()
    config = _read_json(api, name, "config.json", head)
    kind = config.get("model_type") if isinstance(config, dict) else None
    is_whole = kind in kinds.model_types
    is_adapter = "config.json" not in head.files and "adapter_config.json" in head.files and _is_published(head)
    if not is_whole and not is_adapter:
        raise InputError(f"{name} holds {_describe(others, kind)}: give another name, or --overwrite (overwrite=True)")
    checkpoints = {path for path in others if _CHECKPOINTS.match(path)}
    if (listed := _read_json(api, name, MANIFEST, head)) is not None:
        files = PublishedFiles.from_json(listed, f"{MANIFEST} of {name}").files
        left = {path for path, digests in files.items() if _is_as_left(digests, head.files.get(path))}
        return left | checkpoints | {MANIFEST}
    # Published before there were such lists: by its names, but never an adapter beside a whole model, nor the reverse.
    left = {path for path in others if kinds.has(path)}
    return left | checkpoints if is_adapter else {path for path in left if not _is_named_by(path, _ADAPTERS)}


def _is_published(head: Head) -> bool:
    """Whether an adapter is one of ours: it has a list of what was put there, or our processor's code."""
    return MANIFEST in head.files or "processing_hf_clip.py" in head.files


def _is_as_left(digests: Digests, file: File | None) -> bool:
    if file is None:
        return False
    return file.sha256 == digests.sha256 if file.sha256 else file.blob_id in (None, digests.blob_id)


def _describe(files: list[str], kind: object) -> str:
    """What a repository looks like, and the first of its files."""
    looks = next(pattern for pattern in _KINDS if any(fnmatchcase(path, pattern) for path in files))
    said = _KINDS[looks] + (f" (model_type {kind!r})" if looks == "config.json" else "")
    return f"{said}: {_first(files)}"


def _first(files: Collection[str]) -> str:
    """Some names, and how many more there are."""
    some = sorted(files, key=lambda path: (path.count("/"), path))[:4]
    return ", ".join(some) + (f" and {len(files) - len(some)} more" if len(files) > len(some) else "")


def refuse_to_replace(name: str, replaced: list[str], ours: Collection[str]) -> None:
    foreign = [path for path in replaced if path not in ours and not ANYBODYS.fullmatch(path)]
    if foreign:
        raise InputError(
            f"{name} holds files that hf_clip did not leave there so, and would replace: {_first(foreign)}: take them "
            "out, give another name, or --overwrite (overwrite=True)"
        )


def _read_json(api: HfApi, name: str, path: str, head: Head) -> object:
    """A small file's value; None where it is not there, or no JSON."""
    if path not in head.files:
        return None
    address = hf_hub_url(name, path, revision=head.sha, endpoint=api.endpoint)
    headers = build_hf_headers(token=api.token)

    def read() -> bytes:
        response = http_backoff("GET", address, headers=headers)
        hf_raise_for_status(response)
        return response.content

    try:
        return json.loads(called(read))
    except ValueError:
        return None


def write_manifest(folder: Path) -> None:
    """Writes into a folder that is to be published what it holds, so that the next publication knows it again."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    listed = {name: digests(path) for name, path in files.items() if name not in (MANIFEST, "README.md")}
    PublishedFiles(files=listed).write(folder / MANIFEST)


def digests(file: Path) -> Digests:
    blob, whole = hashlib.sha1(b"blob %d\0" % file.stat().st_size), hashlib.sha256()
    with file.open("rb") as content:
        while part := content.read(1 << 20):
            blob.update(part)
            whole.update(part)
    return Digests(blob.hexdigest(), whole.hexdigest())
