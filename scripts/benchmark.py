"""Runs hf_clip beside its peers and says how much faster, or how much leaner, it is.

    pip install -e ".[benchmark]"
    python scripts/benchmark.py --output benchmark

Every comparison alternates its sides (A B A B …) in one process; its figure is the ratio of the medians. Progress goes
to stderr, a markdown table to stdout, and with --output the rounds themselves to benchmark.json, and a picture.
"""

import argparse
import contextlib
import gc
import importlib
import io
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # every tower is built here, of random weights

import torch
from comparisons import ROWS
from comparisons.measuring import PACKAGES, Unavailable, machine, progress
from comparisons.sides import Settings
from transformers.utils import logging


class _OneLine(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"benchmark.py: {message}\n")


def parse(argv: Sequence[str] | None) -> tuple[list[str], Settings, Path | None]:
    listing = "\n".join(f"  {name:27}{what}" for name, (_, _, what) in ROWS.items())
    parser = _OneLine(
        "benchmark.py", description=__doc__, epilog=f"rows:\n{listing}", formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help="default: all")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", dest="size", action="store_const", const="quick", help="smaller batches; the targets mean full ones"
    )
    size.add_argument(
        "--tiny", dest="size", action="store_const", const="tiny", help="toy towers: does the script work at all?"
    )
    parser.add_argument("--rounds", type=_at_least(1), default=5, help="of each comparison; default: 5")
    parser.add_argument("--workers", type=_at_least(1), default=2, help="of the Trainer's loader; default: 2")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default: bf16 autocast on a GPU, else fp32")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where benchmark.json and benchmark.png go")
    given = parser.parse_args(argv)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: no GPU is visible here; leave it out, or give cpu")
    if given.output:
        try:
            given.output.mkdir(parents=True, exist_ok=True)
            _write(given.output / "benchmark.json", "{}")
        except OSError as error:
            parser.error(f"--output {given.output}: {error.strerror}; give a folder that can be written to")
    on_gpu = given.device != "cpu" and torch.cuda.is_available()
    precision = given.precision or ("bf16" if on_gpu else "fp32")
    device = torch.device("cuda" if on_gpu else "cpu")
    return given.rows, Settings(device, given.rounds, given.size or "full", precision, given.workers), given.output


def _at_least(least: int) -> Any:
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    number.__name__ = "whole number"
    return number


def run_rows(name: str, settings: Settings) -> list[dict[str, Any]]:
    """The rows of one comparison as JSON; one that cannot be made says why."""
    module, function, what = ROWS[name]
    progress(f"{name}: {what}")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the Trainer and peers print their logs
            rows = getattr(importlib.import_module(f"comparisons.{module}"), function)(settings)
        return [{"row": name, **row.as_json()} for row in rows]
    except Unavailable as error:
        progress(f"  {error}")
        return [{"row": name, "name": what, "unavailable": str(error)}]
    except Exception as error:  # hours of other rows are not to be lost
        traceback.print_exc()
        return [{"row": name, "name": what, "failed": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}]
    finally:
        gc.collect()
        torch.compiler.reset()


def main(argv: Sequence[str] | None = None) -> int:
    names, settings, output = parse(argv)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    report: dict[str, Any] = {
        "machine": machine(settings.device, settings.size == "tiny"),
        "size": settings.size,
        "precision": settings.precision,
        "rows": [],
    }
    for name in names:
        report["rows"] += run_rows(name, settings)
        if output:
            _write(output / "benchmark.json", json.dumps(report, indent=1, ensure_ascii=False))
    print(markdown(report))
    if output:
        try:
            draw(report, output / "benchmark.png")
        except ImportError:
            progress("no picture without matplotlib: pip install -e '.[benchmark]'")
    return 1 if any("failed" in row for row in report["rows"]) else 0


def _write(file: Path, text: str) -> None:
    aside = file.with_suffix(".aside")
    aside.write_text(text)
    aside.replace(file)


# ---- the table ------------------------------------------------------------------------------------------------------


def markdown(report: dict[str, Any]) -> str:
    """The table, what was measured on, and what each side did."""
    lines = ["| | hf_clip | peer | figure | rounds | target | |", "| --- | --: | --: | --: | --- | --- | --- |"]
    for row in report["rows"]:
        if "ours" in row:
            cells = [row["name"], _show(row["ours"]), _show(row["peer"]), figure(row), _spread(row), _target(row)]
            lines.append(f"| {' | '.join([*cells, verdict(row)])} |")
        else:
            lines.append(f"| {row['name']} | | | | | | {row.get('unavailable') or row['failed']} |")
    return "\n".join([*lines, "", *_machine_lines(report), "", *_side_lines(report)])


def _show(side: dict[str, Any] | None) -> str:
    return f"{short(side['median'])} {side['unit']}" if side else ""


def short(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def figure(row: dict[str, Any]) -> str:
    return f"{short(row['figure'])} {'×' if row['peer'] else row['ours']['unit']}"


def _spread(row: dict[str, Any]) -> str:
    rounds = len(row["ours"]["values"])
    return "1" if rounds == 1 else f"{rounds}: {short(row['spread'][0])} to {short(row['spread'][1])}"


def _target(row: dict[str, Any]) -> str:
    return "" if row["target"] is None else f"{'≥' if row['at_least'] else '≤'} {short(row['target'])}"


def verdict(row: dict[str, Any]) -> str:
    if row["met"] is None:
        return ""
    return "met" if row["met"] else "**under target**" if row["at_least"] else "**over target**"


def _machine_lines(report: dict[str, Any]) -> list[str]:
    about = report["machine"]
    ceilings = ", ".join(f"{kind} {value:,.0f} GFLOP/s" for kind, value in about["matrix_product_gflops"].items())
    versions = ", ".join(f"{name} {about['versions'][name]}" for name in PACKAGES if name in about["versions"])
    sizes = {
        "full": [],
        "quick": ["Quick: the batches are smaller than those that the targets are meant for."],
        "tiny": ["Tiny: towers of a few thousand weights; the figures mean nothing."],
    }
    return [
        *sizes[report["size"]],
        f"{about['date'][:10]}, `{about['command']}`, on {about['device']}: {about['processor']}, "
        f"{about['cores']} cores, {about['threads']} threads; matrix product {ceilings}. {versions}.",
    ]


def _side_lines(report: dict[str, Any]) -> list[str]:
    """What each side of each row did."""
    lines = []
    for row in report["rows"]:
        if "ours" in row:
            sides = " against ".join(side["what"] for side in (row["ours"], row["peer"]) if side)
            lines.append(f"- {row['name']}: {sides}" + (f" ({row['note']})" if row["note"] else ""))
    return lines


# ---- the picture ----------------------------------------------------------------------------------------------------


def draw(report: dict[str, Any], file: Path) -> None:
    """Ratios against what they must reach, and costs as shares of what is allowed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measured = [row for row in report["rows"] if "ours" in row]
    gains = [row for row in measured if row["at_least"]]
    costs = [row for row in measured if not row["at_least"] and row["target"]]
    panels = [(rows, title) for rows, title in ((gains, GAINS), (costs, COSTS)) if rows]
    if not panels:
        return
    canvas = Figure(figsize=(11, 1.6 + 0.42 * len(gains + costs) + 0.9 * len(panels)), layout="constrained")
    FigureCanvasAgg(canvas)
    heights = [len(rows) + 1 for rows, _ in panels]
    axes = canvas.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axis, (rows, title) in zip(axes, panels, strict=True):
        _draw_bars(axis, rows, title)
    about = report["machine"]
    ceilings = ", ".join(f"{value:,.0f} GFLOP/s {kind}" for kind, value in about["matrix_product_gflops"].items())
    canvas.supxlabel(f"{about['date'][:10]}, {about['processor']}, {about['threads']} threads, {ceilings}", fontsize=8)
    canvas.savefig(file, dpi=120)


GAINS = "times as fast as the peer (black: target)"
COSTS = "share of what is allowed (black: all of it)"
_COLORS = {True: "#2b7a78", False: "#d1495b", None: "#9a9a9a"}


def _draw_bars(axis: Any, rows: list[dict[str, Any]], title: str) -> None:
    is_cost = title == COSTS
    lengths = [row["figure"] / row["target"] if is_cost else row["figure"] for row in rows]
    targets = [1.0 if is_cost else row["target"] for row in rows]
    places = range(len(rows) - 1, -1, -1)
    axis.barh(places, lengths, color=[_COLORS[row["met"]] for row in rows], height=0.6)
    for place, row, length, target in zip(places, rows, lengths, targets, strict=True):
        if target is not None:
            axis.plot([target, target], [place - 0.42, place + 0.42], color="black", linewidth=2)
        said = f"{figure(row)}, allowed {short(row['target'])}" if is_cost else figure(row)
        axis.annotate(
            said, (max(length, target or 0), place), (5, 0), textcoords="offset points", va="center", fontsize=8
        )
    axis.set_yticks(places, [_wrapped(row["name"]) for row in rows], fontsize=8)
    axis.set_title(title, fontsize=10, loc="left")
    if max(lengths) > 20:
        axis.set_xscale("log")
    axis.margins(x=0.2)
    axis.spines[["top", "right"]].set_visible(False)


def _wrapped(name: str) -> str:
    head, _, tail = name.partition(": ")
    return f"{head}\n{tail}" if tail else head


if __name__ == "__main__":
    sys.exit(main())
