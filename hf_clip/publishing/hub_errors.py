"""What goes wrong at a Hub, as one line that says how to fix it; no secret in it, nor in the client's logs."""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

from ..core.errors import InputError
from ..core.public import without_secrets
from .hub_calls import AGAIN, CONNECT, Stumbled, httpx

REFUSALS = {
    401: "{hub} does not take the token ({said}): it is wrong or has expired: `hf auth login`, or set HF_TOKEN anew",
    403: "the token may not write to {repo} on {hub} ({said}): use one with write access, or open a pull request",
    404: "{repo} is not on {hub}, or the token may not see it ({said}): check the name, the token and HF_ENDPOINT",
    412: "someone else has committed to {repo}, and nothing was published ({said}): look at that, then run again",
}
# At WARNING and INFO these name addresses; those of LFS storage are signed, and whoever has the signature may write.
_LOGGERS = ("huggingface_hub.utils._http", "httpx2", "httpx")


def explain(error: BaseException, hub: str, repo: str) -> str:
    chain = _causes(error)
    cause = next(
        (each for each in chain if isinstance(each, (HTTPError, OfflineModeIsEnabled, InputError))), chain[-1]
    )
    said = " ".join(str(cause).split())[:300]
    if isinstance(cause, InputError):
        return said
    if isinstance(cause, OfflineModeIsEnabled):
        return f"{hub} cannot be asked while HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set: unset it, then run again"
    if isinstance(cause, HfHubHTTPError):
        return _explain_status(cause, hub, repo)
    if isinstance(cause, httpx.TimeoutException):
        seconds = f"for {CONNECT:g} s" if isinstance(cause, httpx.ConnectTimeout) else "any more"
        return f"{hub} does not answer {seconds} ({said or type(cause).__name__}): check the network, then {AGAIN}"
    if isinstance(cause, HTTPError):
        return f"the connection to {hub} fails ({said or type(cause).__name__}): check the network, then {AGAIN}"
    if type(cause) is ConnectionError or type(cause).__module__.startswith("hf_xet"):
        return _explain_xet(said, hub, repo)
    if isinstance(cause, (OSError, RuntimeError)) or _is_told(cause):
        outer = " ".join(str(chain[0]).split())[:150]
        return f"{repo} cannot be published on {hub}: {outer if outer in said else f'{outer} ({said})'}"
    kind = "" if isinstance(cause, Stumbled) else f"{type(cause).__name__}: "
    return f"{hub} does not answer as a Hub does ({kind}{said}): check HF_ENDPOINT, then {AGAIN}"


def _causes(error: BaseException) -> list[BaseException]:
    """An error and what it was raised from; what was raised first comes last."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain


def _is_told(error: BaseException) -> bool:
    """Whether the client says what it does not like; of JSON of another shape it says nothing that helps."""
    return isinstance(error, ValueError) and not isinstance(error, (json.JSONDecodeError, UnicodeError))


def _explain_status(error: HfHubHTTPError, hub: str, repo: str) -> str:
    status = error.response.status_code
    message = " ".join((error.server_message or "").split())[:200]
    # Storage answers in XML, with keys in it.
    said = f"{status} at {error.response.url.path}" + (f": {message}" if message and message[0] != "<" else "")
    if status == 404 and error.response.url.path.endswith("/info/lfs/verify"):  # of an object, not of the repository
        return f"a file did not arrive whole in the storage of {hub} ({said}): {AGAIN}"
    if status in REFUSALS:
        return REFUSALS[status].format(hub=hub, repo=repo, said=said)
    if status >= 500 or status in (408, 429):
        return f"{hub} is in trouble ({said}): wait a little, then {AGAIN}"
    return f"{hub} refuses to publish {repo} ({said}): fix that, then {AGAIN}"


def _explain_xet(said: str, hub: str, repo: str) -> str:
    status = re.search(r"\((401|403) ", said)
    if status:
        return REFUSALS[int(status[1])].format(hub=hub, repo=repo, said=said)
    return f"{hub} gives no way to its Xet storage ({said}): run again, or set HF_HUB_DISABLE_XET=1 to upload by LFS"


@contextmanager
def logs_without_secrets(token: str) -> Iterator[None]:
    def clean(record: logging.LogRecord) -> bool:
        record.msg, record.args = without_secrets(record.getMessage(), token), ()
        return True

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(clean)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(clean)
