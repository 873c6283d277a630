"""Times, peaks and ceilings, and the row that comes of them."""

import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "transformers", "accelerate", "open_clip_torch", "sentence-transformers", "pillow")


class Unavailable(Exception):
    """A row that cannot be measured here; the message says what it needs."""


def needs_extra(error: ImportError) -> Unavailable:
    return Unavailable(f"no {error.name} here: needs pip install -e '.[benchmark]'")


@dataclass
class Measured:
    """What one side did.

    Args:
        what: the side in a few words.
        values: one figure a round.
        unit: of the figures.
    """

    what: str
    values: list[float]
    unit: str

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass
class Row:
    """One line of the table: the figure is ours / peer, by medians, or ours alone where there is no peer.

    Args:
        target: what the figure must reach, or stay under; `None`: shown for information.
        at_least: whether the figure must be at least the target, or at most.
        note: what a reader must know of the measurement.
    """

    name: str
    ours: Measured
    peer: Measured | None = None
    target: float | None = None
    at_least: bool = True
    note: str = ""

    @property
    def figure(self) -> float:
        return self.ours.median / self.peer.median if self.peer else self.ours.median

    @property
    def spread(self) -> tuple[float, float]:
        """The least and the largest figure of a single round."""
        peers = self.peer.values if self.peer else [1.0] * len(self.ours.values)
        if len(peers) != len(self.ours.values):  # sides that were measured apart have no rounds in common
            return self.figure, self.figure
        ratios = [ours / peer for ours, peer in zip(self.ours.values, peers, strict=True)]
        return min(ratios), max(ratios)

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.figure >= self.target if self.at_least else self.figure <= self.target

    def as_json(self) -> dict[str, Any]:
        def side(measured: Measured | None) -> dict[str, Any] | None:
            return {**vars(measured), "median": measured.median} if measured else None

        return {
            "name": self.name,
            "ours": side(self.ours),
            "peer": side(self.peer),
            "figure": self.figure,
            "spread": list(self.spread),
            "target": self.target,
            "at_least": self.at_least,
            "met": self.met,
            "note": self.note,
        }


def alternate(
    sides: dict[str, Callable[[], Any]], rounds: int, device: torch.device, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each side in each round: A B A B …, so that a machine that slows down slows both."""
    for work in sides.values():
        for _ in range(warm_up):
            seconds_of(work, device)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, work in sides.items():
            times[name].append(seconds_of(work, device))
        said = ", ".join(f"{name} {seconds[-1]:.3g} s" for name, seconds in times.items())
        progress(f"  round {number + 1} of {rounds}: {said}")
    return times


def seconds_of(work: Callable[[], Any], device: torch.device) -> float:
    """Of one call; work of which a part counts returns the seconds of that part."""
    _synchronize(device)
    start = time.perf_counter()
    told = work()
    _synchronize(device)
    return told if isinstance(told, float) else time.perf_counter() - start


def rates(what: str, seconds: list[float], items: int, unit: str) -> Measured:
    return Measured(what, [items / each for each in seconds], unit)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# ---- memory ---------------------------------------------------------------------------------------------------------


def in_fresh_process(function: Callable[..., Any], *args: Any) -> Any:
    """What a module's function returns in a process of its own: peaks of what ran before are not in it."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_keep_stdout_clean) as pool:
        return pool.submit(function, *args).result()


def _keep_stdout_clean() -> None:
    sys.stdout = sys.stderr


class Peak:
    """Largest memory since it was made, in MB: resident, or on a GPU allocated."""

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device) / 1e6
        else:
            # The kernel counts a peak for the process's whole life; 5 makes it start anew.
            Path("/proc/self/clear_refs").write_text("5")
            self.before = _status("VmRSS")

    def megabytes(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e6
        return _status("VmHWM")

    def above_start(self) -> float:
        return self.megabytes() - self.before


def _status(name: str) -> float:
    """MB, of /proc/self/status: `ru_maxrss` would count the parent's memory from before the exec."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024 / 1e6


# ---- the machine ----------------------------------------------------------------------------------------------------


def matrix_product_ceiling(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """GFLOP/s of a square matrix product, the best of six."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / min(seconds_of(lambda: left @ right, device) for _ in range(6)) / 1e9


def machine(device: torch.device, tiny: bool) -> dict[str, Any]:
    size = 256 if tiny else 4096
    ceilings = {"float32": matrix_product_ceiling(device, torch.float32, size)}
    if device.type == "cuda":
        ceilings["bfloat16"] = matrix_product_ceiling(device, torch.bfloat16, 2 * size)
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": " ".join(["python", *sys.argv]),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "matrix_product_gflops": ceilings,
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
