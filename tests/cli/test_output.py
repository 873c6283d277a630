"""Tables line up, and JSON is one line."""

import json
import sys

from hf_clip.cli.output import Printer, metric_rows


def test_tables_line_up(capsys):
    with Printer() as printer:
        printer.table(["", "model", "chance"], [["text → image", 0.5, 0.12345], ["pictures", 1234, ""]])
    assert capsys.readouterr().out.splitlines() == [
        "              model  chance",
        "text → image  0.500   0.123",
        "pictures       1234",
    ]


def test_json_is_one_line_of_readable_text(capsys):
    with Printer() as printer:
        printer.json({"caption": "ein Hündchen\n", "recall": 0.5})
    out = capsys.readouterr().out
    assert (out.count("\n"), json.loads(out)) == (1, {"caption": "ein Hündchen\n", "recall": 0.5})
    assert "ü" in out


def test_it_keeps_the_stdout_it_was_made_with(capsys, monkeypatch):
    with Printer() as printer:
        monkeypatch.setattr(sys, "stdout", sys.stderr)
        printer.line("result")
        print("noise")
    assert capsys.readouterr() == ("result\n", "noise\n")


def test_metric_rows():
    metrics = {f"{way}_retrieval_{what}@{k}": value for value, (way, what, k) in enumerate(
        (way, what, k) for way in ("image", "text") for what in ("recall", "chance") for k in (1, 5)
    )}  # fmt: skip
    assert metric_rows(metrics) == [
        ["text → image recall@1", 0, 2],
        ["text → image recall@5", 1, 3],
        ["image → text recall@1", 4, 6],
        ["image → text recall@5", 5, 7],
    ]


def test_rows_of_classes_neighbours_and_probe():
    names = ("zero_shot_acc1", "knn20_projected_leave_one_out_acc1", "linear_probe_pooled_own_split_acc1")
    metrics = {"images": 9, "linear_probe_pooled_lambda": 2.0}
    for number, name in enumerate(names):
        metrics |= {name: number, f"{name}_chance": 0.5}
    assert metric_rows(metrics) == [
        ["zero-shot acc1", 0, 0.5],
        ["knn20_projected_leave_one_out_acc1", 1, 0.5],
        ["linear probe pooled_own_split_acc1", 2, 0.5],
    ]
