"""A small Hub on this machine: as much of its HTTP API as `huggingface_hub` asks, and faults that a test switches on.

    with HubServer() as hub:
        HfApi(endpoint=hub.endpoint, token=hub.token).create_repo("user/name")
        hub.repos["user/name"].head().files

Tokens: `hub.token` writes for "user", `hub.read_token` only reads for it, `hub.expired_token` does nothing any more,
`hub.other_token` writes for "somebody". Big files go by LFS to addresses with a signature, on another origin than the
endpoint as on the real Hub; there is no Xet storage.
"""

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

DATE = "2026-01-01T00:00:00.000Z"
SIGNATURE = "X-Amz-Signature=planted-signature-0123456789"
_LFS = re.compile(r"\.(safetensors|onnx|bin|pt|png|jpg|parquet)$")
_REPO = r"(?P<repo>[^/]+/[^/]+)"
_REV = r"(?P<rev>[^/]+)"


@dataclass(frozen=True)
class File:
    content: bytes
    lfs: bool = False

    @property
    def oid(self) -> str:
        """What the client compares with: SHA-256 of an LFS file's content, git's own hash of any other's."""
        return hashlib.sha256(self.content).hexdigest() if self.lfs else self.blob_id

    @property
    def blob_id(self) -> str:
        """git's hash; of an LFS file, that of its pointer."""
        stored = self.content
        if self.lfs:
            stored = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.oid}\nsize {self.size}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    @property
    def size(self) -> int:
        return len(self.content)


@dataclass(frozen=True)
class Commit:
    sha: str
    title: str
    files: dict[str, File]


@dataclass
class Repository:
    """Its branches, the pull requests "refs/pr/N" among them, and all commits in the order in which they came."""

    name: str
    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)
    pull_requests: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self):
        self.commit("main", "initial commit", {".gitattributes": File(b"*.safetensors filter=lfs\n")})

    def find(self, revision: str) -> Commit | None:
        sha = self.branches.get(revision, revision)
        return next((commit for commit in self.commits if commit.sha == sha), None)

    def head(self, revision: str = "main") -> Commit:
        return self.find(revision)

    def commit(self, branch: str, title: str, files: dict[str, File]) -> Commit:
        names = [f"{path} {file.oid}" for path, file in sorted(files.items())]
        history = f"{self.name} {branch} {len(self.commits)} {title} {names}"
        self.commits.append(Commit(hashlib.sha1(history.encode()).hexdigest(), title, files))
        self.branches[branch] = self.commits[-1].sha
        return self.commits[-1]


@dataclass(frozen=True)
class Request:
    """One line of the log. `auth` says whose token came along, never which."""

    method: str
    path: str
    auth: str
    status: int
    headers: dict[str, str]


@dataclass
class Fault:
    """What befalls the next `times` requests whose "METHOD /path" matches `route`, after `skip` that pass.

    status: is answered, with `body` and `headers`, and the request is not handled, or `handled` all the same. drop:
    the connection is closed "before" the request is handled, "midway" through its body or "after" it was handled,
    unanswered. hang: there is no answer to it until the hub is reset, and it is not handled. before: is called first.
    """

    route: str
    times: int = 1
    skip: int = 0
    status: int | None = None
    body: str = '{"error": "Internal Error - we are working on it"}'
    headers: dict[str, str] = field(default_factory=dict)
    handled: bool = False
    drop: str | None = None
    hang: bool = False
    before: Callable[[], Any] | None = None


@dataclass
class Answer:
    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    def __init__(self, status: int, message: str, code: str = "", **headers: str):
        super().__init__(message)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        headers |= {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.answer = Answer({"error": message}, status, headers)


@dataclass(frozen=True)
class Token:
    user: str
    writes: bool = True
    expired: bool = False


class HubServer:
    """
    Attributes:
        repos: by "user/name".
        blobs: LFS files by their SHA-256, of all repositories.
        log: every request that was answered or dropped.
        part_size: bytes; a larger LFS file goes up in parts.
        expire_after: requests with a token until every token has expired.
        repository_not_found: the status that says so to whoever has a token.
        lacks: what this Hub does not know: "blob ids" in a model's info, "trees", "discussions", "oids" in preupload.
    """

    def __init__(self):
        self.token, self.read_token = "hf_planted-write-token-abcdef", "hf_planted-read-token-abcdef"
        self.expired_token, self.other_token = "hf_planted-expired-token-abc", "hf_planted-other-token-abcd"
        self._tokens = {
            self.token: Token("user"),
            self.read_token: Token("user", writes=False),
            self.expired_token: Token("user", expired=True),
            self.other_token: Token("somebody"),
        }
        self._lock = threading.RLock()
        self.end_of_hanging = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        port = self._server.server_address[1]
        self.endpoint, self._storage = f"http://127.0.0.1:{port}", f"http://localhost:{port}/storage"
        self.reset()

    def reset(self) -> None:
        """As it was when new, at the same address."""
        self.end_of_hanging.set()
        self.end_of_hanging = threading.Event()
        self.repos: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self._parts: dict[tuple[str, int], bytes] = {}
        self.log: list[Request] = []
        self._faults: list[Fault] = []
        self.part_size: int | None = None
        self.expire_after: int | None = None
        self.lacks: set[str] = set()
        self.repository_not_found = 404

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self.end_of_hanging.set()
        self._server.shutdown()
        self._server.server_close()

    # ---- what tests do ------------------------------------------------------------------------------------------

    def fault(self, route: str, **settings: Any) -> None:
        """Switches a `Fault` on."""
        self._faults.append(Fault(route, **settings))

    def commit(self, name: str, files: dict[str, bytes], revision: str = "main", title: str = "by hand") -> Commit:
        """Somebody else's commit, as if through the web page; the repository is made where it is not there."""
        with self._lock:
            repo = self.repos.setdefault(name, Repository(name, private=False))
            added = {path: File(content, bool(_LFS.search(path))) for path, content in files.items()}
            return repo.commit(revision, title, repo.head(revision).files | added)

    def count(self, route: str) -> int:
        """How many requests were "METHOD /path" so far."""
        return sum(bool(re.match(route, f"{request.method} {request.path}")) for request in self.log)

    # ---- answering ----------------------------------------------------------------------------------------------

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times and re.match(fault.route, f"{method} {path}"):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        parts = urlsplit(target)
        with self._lock:
            try:
                for verb, pattern, handle in _ROUTES:
                    matched = re.fullmatch(pattern, parts.path)
                    if matched and method in verb.split():
                        names = {name: unquote(value or "") for name, value in matched.groupdict().items()}
                        call = _Call(self, headers, body, {k: v[0] for k, v in parse_qs(parts.query).items()}, target)
                        return handle(call, **names)
                raise Refusal(404, "Sorry, we can't find the page you are looking for.")
            except Refusal as refusal:
                return refusal.answer

    def who(self, headers: dict[str, str]) -> Token | None:
        """
        Raises:
            Refusal: the token is unknown or has expired.
        """
        sent = headers.get("authorization", "").removeprefix("Bearer ")
        if not sent:
            return None
        if sent not in self._tokens:
            raise Refusal(401, "Invalid credentials in Authorization header")
        if self.expire_after is not None:
            self.expire_after -= 1
        if self._tokens[sent].expired or (self.expire_after or 0) < 0:
            raise Refusal(401, 'User Access Token "laptop" is expired')
        return self._tokens[sent]

    def auth_in_log(self, headers: dict[str, str]) -> str:
        sent = headers.get("authorization", "").removeprefix("Bearer ")
        return (self._tokens[sent].user if sent in self._tokens else "unknown") if sent else ""


@dataclass
class _Call:
    """A request and what the handlers ask of it."""

    hub: HubServer
    headers: dict[str, str]
    body: bytes
    query: dict[str, str]
    target: str

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def user(self) -> Token:
        token = self.hub.who(self.headers)
        if token is None:
            raise Refusal(401, "Invalid username or password.")
        return token

    def repo(self, name: str) -> Repository:
        """A private one is there for its owner alone."""
        token, repo = self.hub.who(self.headers), self.hub.repos.get(name)
        if repo is None or (repo.private and (token is None or token.user != name.split("/")[0])):
            status = self.hub.repository_not_found if token else 401
            raise Refusal(status, "Repository not found", "RepoNotFound")
        return repo

    def commit(self, repo: Repository, revision: str) -> Commit:
        commit = repo.find(revision)
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def check_writes(self, repo: str, *, by_pull_request: bool = False) -> Token:
        token = self.user()
        if not token.writes or (token.user != repo.split("/")[0] and not by_pull_request):
            raise Refusal(403, "Forbidden: you don't have the rights to push to this repository")
        return token

    def check_known(self, what: str) -> None:
        if what in self.hub.lacks:
            raise Refusal(404, "Sorry, we can't find the page you are looking for.")

    def check_signed(self) -> None:
        if SIGNATURE not in self.target:
            raise Refusal(403, "SignatureDoesNotMatch")


def _create(call: _Call) -> Answer:
    wanted, token = call.json, call.user()
    name = f"{wanted.get('organization') or token.user}/{wanted['name']}"
    url = f"{call.hub.endpoint}/{name}"
    call.check_writes(name)
    if name in call.hub.repos:
        return Answer({"error": "You already created this model repo", "url": url}, 409)
    call.hub.repos[name] = Repository(name, private=wanted.get("visibility") == "private")
    return Answer({"url": url, "name": name, "id": "1"})


def _whoami(call: _Call) -> Answer:
    token = call.user()
    role = "write" if token.writes else "read"
    return Answer({"type": "user", "name": token.user, "orgs": [], "auth": {"accessToken": {"role": role}}})


def _validate_yaml(call: _Call) -> Answer:
    import yaml

    try:
        yaml.safe_load(call.json["content"].split("---\n")[1])
    except IndexError:
        return Answer({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    except yaml.YAMLError as error:
        message = f'Invalid "README.md" metadata: {error}'
        return Answer({"error": message, "errors": [{"message": message}], "warnings": []}, 400)
    return Answer({"errors": [], "warnings": []})


def _info(call: _Call, repo: str, rev: str = "main") -> Answer:
    repository = call.repo(repo)
    commit = call.commit(repository, rev)
    files = sorted(commit.files.items())
    siblings = [{"rfilename": path} for path, _ in files]
    if call.query.get("blobs") and "blob ids" not in call.hub.lacks:
        siblings = [{"rfilename": path, "size": file.size, "blobId": file.blob_id} for path, file in files]
        for sibling, (_, file) in zip(siblings, files, strict=True):
            sibling |= {"lfs": _lfs("sha256", file)} if file.lfs else {}
    ids = {"_id": "1", "id": repo, "modelId": repo, "author": repo.split("/")[0]}
    facts = {"sha": commit.sha, "private": repository.private, "gated": False, "disabled": False, "tags": []}
    return Answer(ids | facts | {"siblings": siblings, "lastModified": DATE, "createdAt": DATE})


def _lfs(key: str, file: File) -> dict[str, Any]:
    return {key: file.oid, "size": file.size, "pointerSize": 134}


def _refs(call: _Call, repo: str) -> Answer:
    branches = call.repo(repo).branches
    refs = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha} for name, sha in branches.items()]
    pulls = [ref | {"ref": ref["name"]} for ref in refs if ref["name"].startswith("refs/pr/")]
    heads = [ref for ref in refs if not ref["name"].startswith("refs/pr/")]
    answer = {"branches": heads, "converts": [], "tags": []}
    return Answer(answer | ({"pullRequests": pulls} if call.query.get("include_prs") else {}))


def _tree(call: _Call, repo: str, rev: str, folder: str = "") -> Answer:
    call.check_known("trees")
    files = call.commit(call.repo(repo), rev).files
    inside = {path: file for path, file in files.items() if path.startswith(f"{folder}/" if folder else "")}
    if folder and not inside:
        raise Refusal(404, f"{folder} does not exist", "EntryNotFound")
    return Answer([_entry(path, file) for path, file in sorted(inside.items())])


def _paths_info(call: _Call, repo: str, rev: str) -> Answer:
    files = call.commit(call.repo(repo), rev).files
    paths = call.json["paths"] if call.body[:1] == b"{" else parse_qs(call.body.decode())["paths"]
    return Answer([_entry(path, files[path]) for path in paths if path in files])


def _entry(path: str, file: File) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": file.size, "oid": file.blob_id}
    return entry | ({"lfs": _lfs("oid", file)} if file.lfs else {})


def _discussions(call: _Call, repo: str) -> Answer:
    call.check_known("discussions")
    pulls = [pull for pull in call.repo(repo).pull_requests if pull["status"] == call.query.get("status", "open")]
    return Answer({"discussions": pulls, "count": len(pulls), "start": 0})


def _branch(call: _Call, repo: str, rev: str) -> Answer:
    repository = call.repo(repo)
    call.check_writes(repo)
    if rev in repository.branches:
        raise Refusal(409, f"Reference already exists: {rev}")
    repository.branches[rev] = call.commit(repository, call.json.get("startingPoint", "main")).sha
    return Answer({})


def _preupload(call: _Call, repo: str, rev: str) -> Answer:
    files = call.commit(call.repo(repo), rev).files
    call.check_writes(repo, by_pull_request="create_pr" in call.query)
    rows = []
    for asked in call.json["files"]:
        there = files.get(asked["path"])
        mode = "lfs" if _LFS.search(asked["path"]) else "regular"
        row = {"path": asked["path"], "uploadMode": mode, "shouldIgnore": False}
        rows.append(row | ({"oid": there.oid} if there and "oids" not in call.hub.lacks else {}))
    return Answer({"files": rows, "commitOid": call.commit(call.repo(repo), rev).sha})


def _batch(call: _Call, repo: str) -> Answer:
    call.repo(repo)
    call.check_writes(repo, by_pull_request=True)
    objects = [_object(call, repo, asked["oid"], asked["size"]) for asked in call.json["objects"]]
    multipart = any("chunk_size" in o.get("actions", {}).get("upload", {}).get("header", {}) for o in objects)
    return Answer({"transfer": "multipart" if multipart else "basic", "objects": objects})


def _object(call: _Call, repo: str, oid: str, size: int) -> dict[str, Any]:
    hub, known = call.hub, {"oid": oid, "size": size}
    if oid in hub.blobs:
        return known
    upload: dict[str, Any] = {"href": f"{hub._storage}/{oid}?{SIGNATURE}"}
    if hub.part_size and size > hub.part_size:
        parts = range(1, -(-size // hub.part_size) + 1)
        urls = {str(part): f"{hub._storage}/{oid}/{part}?{SIGNATURE}" for part in parts}
        upload = {"href": f"{hub.endpoint}/complete/{oid}?{SIGNATURE}"}
        upload["header"] = {"chunk_size": str(hub.part_size)} | urls
    verify = {"href": f"{hub.endpoint}/{repo}.git/info/lfs/verify"}
    return known | {"authenticated": True, "actions": {"upload": upload, "verify": verify}}


def _put(call: _Call, oid: str, part: str = "") -> Answer:
    call.check_signed()
    if part:
        call.hub._parts[oid, int(part)] = call.body
        return Answer(headers={"ETag": f'"{hashlib.md5(call.body).hexdigest()}"'})
    return _store(call, oid, call.body)


def _complete(call: _Call, oid: str) -> Answer:
    call.check_signed()
    numbers = [part["partNumber"] for part in call.json["parts"]]
    return _store(call, oid, b"".join(call.hub._parts.pop((oid, number)) for number in numbers))


def _store(call: _Call, oid: str, content: bytes) -> Answer:
    if hashlib.sha256(content).hexdigest() != oid:
        raise Refusal(400, "BadDigest")
    call.hub.blobs[oid] = content
    return Answer({})


def _verify(call: _Call, repo: str) -> Answer:
    call.repo(repo)
    call.check_writes(repo, by_pull_request=True)
    if len(call.hub.blobs.get(call.json["oid"], b"")) != call.json["size"]:
        raise Refusal(404, "Object not found")
    return Answer({})


def _commit(call: _Call, repo: str, rev: str) -> Answer:
    """All or nothing: the branch moves when every line of the request has been understood."""
    repository, as_pull_request = call.repo(repo), "create_pr" in call.query
    token = call.check_writes(repo, by_pull_request=as_pull_request)
    if rev not in repository.branches:
        raise Refusal(404, f"Invalid rev id: {rev}", "RevisionNotFound")
    header, *operations = [json.loads(line) for line in call.body.splitlines()]
    parent = header["value"].get("parentCommit")
    if parent and not as_pull_request and parent != repository.branches[rev]:
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    files, title = dict(repository.head(rev).files), header["value"]["summary"]
    for operation in operations:
        _apply(call.hub, files, operation["key"], operation["value"])
    branch = rev
    if as_pull_request:
        number = len(repository.pull_requests) + 1
        facts = {"title": title, "num": number, "status": "open", "author": {"name": token.user}, "createdAt": DATE}
        repository.pull_requests.append(facts | {"repo": {"name": repo, "type": "model"}, "isPullRequest": True})
        branch = f"refs/pr/{number}"
    commit = repository.commit(branch, title, files)
    answer = {"success": True, "commitOid": commit.sha, "commitUrl": f"{call.hub.endpoint}/{repo}/commit/{commit.sha}"}
    pull_url = f"{call.hub.endpoint}/{repo}/discussions/{len(repository.pull_requests)}"
    return Answer(answer | ({"pullRequestUrl": pull_url} if as_pull_request else {}))


def _apply(hub: HubServer, files: dict[str, File], key: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if key == "file":
        files[path] = File(base64.b64decode(value["content"]))
    elif key == "lfsFile":
        if value["oid"] not in hub.blobs:
            raise Refusal(400, f"LFS pointer pointed to a file that does not exist: {path}")
        files[path] = File(hub.blobs[value["oid"]], lfs=True)
    elif key == "deletedFile":
        if path not in files:
            raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
        del files[path]
    else:
        raise Refusal(400, f"no such operation here: {key}")


def _resolve(call: _Call, repo: str, rev: str, path: str) -> Answer:
    commit = call.commit(call.repo(repo), rev)
    if path not in commit.files:
        raise Refusal(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.sha)
    file = commit.files[path]
    headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{file.oid}"', "Accept-Ranges": "bytes"}
    if file.lfs:
        call.hub.blobs.setdefault(file.oid, file.content)
        headers |= {"X-Linked-ETag": f'"{file.oid}"', "X-Linked-Size": str(file.size)}
        return Answer(b"", 302, headers | {"Location": f"{call.hub._storage}/{file.oid}?{SIGNATURE}"})
    return _content(call, file.content, headers)


def _download(call: _Call, oid: str) -> Answer:
    call.check_signed()
    if oid not in call.hub.blobs:
        raise Refusal(404, "NoSuchKey")
    return _content(call, call.hub.blobs[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})


def _content(call: _Call, content: bytes, headers: dict[str, str]) -> Answer:
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", call.headers.get("range", ""))
    if not asked:
        return Answer(content, 200, headers)
    first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
    headers = headers | {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
    return Answer(content[first : last + 1], 206, headers)


def _no_xet(call: _Call, repo: str, rev: str) -> Answer:
    call.repo(repo)
    raise Refusal(404, "Sorry, we can't find the page you are looking for.")


_ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("POST", "/api/repos/create", _create),
    ("GET", "/api/whoami-v2", _whoami),
    ("POST", "/api/validate-yaml", _validate_yaml),
    ("GET", f"/api/models/{_REPO}", _info),
    ("GET", f"/api/models/{_REPO}/revision/{_REV}", _info),
    ("GET", f"/api/models/{_REPO}/refs", _refs),
    ("GET", f"/api/models/{_REPO}/tree/{_REV}", _tree),
    ("GET", f"/api/models/{_REPO}/tree/{_REV}/(?P<folder>.+)", _tree),
    ("POST", f"/api/models/{_REPO}/paths-info/{_REV}", _paths_info),
    ("GET", f"/api/models/{_REPO}/discussions", _discussions),
    ("POST", f"/api/models/{_REPO}/branch/{_REV}", _branch),
    ("POST", f"/api/models/{_REPO}/preupload/{_REV}", _preupload),
    ("POST", f"/api/models/{_REPO}/commit/{_REV}", _commit),
    ("GET", f"/api/models/{_REPO}/xet-(?:read|write)-token/{_REV}", _no_xet),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _batch),
    ("POST", rf"/{_REPO}\.git/info/lfs/verify", _verify),
    ("POST", "/complete/(?P<oid>[0-9a-f]+)", _complete),
    ("PUT", "/storage/(?P<oid>[0-9a-f]+)", _put),
    ("PUT", r"/storage/(?P<oid>[0-9a-f]+)/(?P<part>\d+)", _put),
    ("GET HEAD", "/storage/(?P<oid>[0-9a-f]+)", _download),
    ("GET HEAD", f"/{_REPO}/resolve/{_REV}/(?P<path>.+)", _resolve),
]


class _Handler(BaseHTTPRequestHandler):
    """Reads a request, lets the hub answer it, and does the harm that a fault asks for."""

    hub: HubServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        fault = self.hub.take_fault(self.command, urlsplit(self.path).path) or Fault("")
        headers = {name.lower(): value for name, value in self.headers.items()}
        if fault.drop == "midway":
            self.rfile.read(max(1, int(headers.get("content-length", 2)) // 2))
        if fault.drop in ("before", "midway"):
            return self._hang_up(headers)
        body = self._read_body(headers)
        if fault.hang:
            end = self.hub.end_of_hanging
            self._log(headers, 0)
            end.wait()
            return self._close()
        if fault.before:
            fault.before()
        if not fault.status or fault.handled:
            answer = self.hub.answer(self.command, self.path, headers, body)
        if fault.status:
            answer = Answer(fault.body.encode(), fault.status, fault.headers)
        if fault.drop == "after":
            return self._hang_up(headers)
        self._log(headers, answer.status)
        return self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815

    def _read_body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(headers.get("content-length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(self, answer: Answer) -> None:
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        kind = "application/octet-stream" if isinstance(answer.body, bytes) else "application/json"
        for name, value in ({"Content-Type": kind} | answer.headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _hang_up(self, headers: dict[str, str]) -> None:
        self._log(headers, 0)
        self._close()

    def _close(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _log(self, headers: dict[str, str], status: int) -> None:
        auth = self.hub.auth_in_log(headers)
        shown = {name: value for name, value in headers.items() if name != "authorization"}
        self.hub.log.append(Request(self.command, urlsplit(self.path).path, auth, status, shown))

    def log_message(self, *_) -> None:
        pass
