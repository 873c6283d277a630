"""Calls of huggingface_hub's client, with bounds: by itself it waits for ever."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar

from huggingface_hub import set_client_factory
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import parse_ratelimit_headers
from huggingface_hub.utils._http import default_client_factory

from ..core.errors import InputError

CONNECT, SILENCE = 10.0, 30.0  # seconds: for a connection; without a byte of an answer
LONGEST_WAIT = 60  # seconds that a Hub may ask to wait
CREATIONS = 6  # of a repository, while the Hub says that another operation is in progress
AGAIN = "run the same command again: what is up already is not sent again"
IN_TROUBLE = (408, 429, 500, 502, 503, 504)
httpx: Any = import_module(HTTPError.__module__.partition(".")[0])  # the client's, by whichever name

_T = TypeVar("_T")


class Stumbled(Exception):
    """The client could make nothing of an answer, or of what it was told to do; the cause says what."""


# What may go wrong in a question: the connection and the Hub's refusals, files of this machine, and the above.
FAILURES = (HTTPError, OSError, OfflineModeIsEnabled, InputError, Stumbled)


def called(question: Callable[[], _T]) -> _T:
    """What the client makes of it.

    Raises:
        Stumbled: it breaks off with another error than those that it has for the connection and the Hub's refusals;
            JSON of another shape than a Hub's ends in any.
    """
    try:
        return question()
    except FAILURES:
        raise
    except Exception as error:
        if refusal := _refusal_behind(error):
            raise HfHubHTTPError(str(refusal), response=refusal.response) from error
        raise Stumbled(str(error)) from error


def _refusal_behind(error: BaseException) -> Any:
    """The Hub's refusal, where the client stumbled over its body; None where it made an error of its own of it."""
    while error.__context__ is not None and not isinstance(error, (httpx.HTTPStatusError, HfHubHTTPError)):
        error = error.__context__
    return error if isinstance(error, httpx.HTTPStatusError) and not isinstance(error, HfHubHTTPError) else None


def asked(question: Callable[[], _T]) -> _T:
    """The same of a question that changes nothing, put again where the Hub is in trouble for a moment."""
    for pause in (1, 3):
        try:
            return called(question)
        except HfHubHTTPError as error:
            if error.response.status_code not in IN_TROUBLE:
                raise
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            pass
        time.sleep(pause)
    return called(question)


@contextmanager
def bounded(hub: str) -> Iterator[None]:
    """The client, which by itself waits for ever."""
    bounds = _Bounds(hub)

    def client() -> Any:
        made = default_client_factory()
        hooks = made.event_hooks
        made.event_hooks = {
            "request": [*hooks.get("request", []), bounds.before],
            "response": [*hooks.get("response", []), bounds.after],
        }
        return made

    set_client_factory(client)
    try:
        yield
    finally:
        set_client_factory(default_client_factory)


class _Bounds:
    """What a request may take, and how often the client may repeat it."""

    def __init__(self, hub: str):
        self.hub = hub
        self._attempts: dict[tuple[str, str], tuple[float, int]] = {}  # begin of the last, long ones before it
        self._creations = 0
        self._lock = threading.Lock()  # files go up in several threads

    def before(self, request: Any) -> None:
        # Storing a file or making a commit takes a Hub longer than looking something up.
        silence = SILENCE if request.method in ("GET", "HEAD") else 2 * SILENCE
        request.extensions["timeout"] = {"connect": CONNECT, "read": silence, "write": silence, "pool": None}
        asked, now = (request.method, str(request.url)), time.monotonic()
        with self._lock:
            begun, slow = self._attempts.get(asked, (now, 0))
            slow += now - begun >= silence
            self._attempts[asked] = now, slow
        if slow > 1:  # what took long and failed is tried once more, not five times as the client would
            raise InputError(
                f"{self.hub} did not answer {request.method} {request.url.path}, twice {silence:g} s long: check "
                f"the network, then {AGAIN}"
            )
        if request.url.path.endswith("/api/repos/create"):
            self._pause_creation()

    def after(self, response: Any) -> None:
        # The client would obey, however long.
        asked = response.headers.get("retry-after", "").strip()
        limit = parse_ratelimit_headers(response.headers) if response.status_code == 429 else None
        seconds = max(int(asked) if asked.isdecimal() else 0, limit.reset_in_seconds if limit else 0)
        if response.status_code in IN_TROUBLE and seconds > LONGEST_WAIT:
            said = f"{response.status_code} at {response.request.url.path}"
            raise InputError(f"{self.hub} asks to wait {seconds} s ({said}): wait so long, then {AGAIN}")

    def _pause_creation(self) -> None:
        """The client repeats this one without a pause and without end while the Hub makes another repository."""
        self._creations += 1
        if self._creations > CREATIONS:
            raise InputError(
                f"{self.hub} is busy with another operation of this user (409 at /api/repos/create): wait a little, "
                f"then {AGAIN}"
            )
        if self._creations > 1:
            time.sleep(self._creations)
