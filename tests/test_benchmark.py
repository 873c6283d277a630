import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import benchmark
import pytest
import torch
from comparisons import ROWS, sides
from comparisons.measuring import Measured, Row, alternate
from comparisons.sides import Settings
from ready_processes import run_code

SCRIPTS = Path(__file__).parent.parent / "scripts"
CPU = torch.device("cpu")


@pytest.fixture
def tiny():
    return Settings(CPU, rounds=1, size="tiny")


def test_a_row_is_ours_over_the_peer_by_medians():
    row = Row(
        "speed", Measured("a", [4.0, 6.0, 9.0], "pairs/s"), Measured("b", [2.0, 4.0, 3.0], "pairs/s"), target=2.0
    )
    assert row.figure == 6.0 / 3.0
    assert row.spread == (1.5, 3.0)
    assert row.met is True
    cost = Row("cost", Measured("a", [110.0], "s"), Measured("b", [100.0], "s"), target=1.08, at_least=False)
    assert cost.figure == pytest.approx(1.1)
    assert cost.met is False
    assert Row("alone", Measured("a", [1.5], "MB"), target=2.0, at_least=False).met is True
    assert Row("for information", Measured("a", [1.0], "s")).met is None


def test_sides_take_turns_and_may_say_what_counts():
    calls = []
    work = {"ours": lambda: calls.append("ours"), "peer": lambda: calls.append("peer") or 2.5}
    times = alternate(work, 2, CPU, warm_up=1)
    assert calls == ["ours", "peer"] + ["ours", "peer"] * 2
    assert times["peer"] == [2.5, 2.5]


def test_captions_are_as_long_as_the_targets_mean(tiny):
    lengths = [len(tiny.tokenizer(caption)["input_ids"]) for caption in tiny.captions(2000)]
    assert min(lengths) == 8
    assert max(lengths) <= 20
    assert sum(lengths) / len(lengths) == pytest.approx(13, abs=0.2)


def test_open_clip_embeds_as_we_do(tiny):
    pytest.importorskip("open_clip")
    theirs, ours = sides.open_clip_model(tiny).eval(), sides.our_model(tiny).eval()
    theirs.visual.proj.load_state_dict(ours.visual_projection.state_dict())
    theirs.text.proj.load_state_dict(ours.text_projection.state_dict())
    batch = sides.make_batches(tiny, count=1)[0]
    expected = theirs(batch.pixels, batch.padded)
    output = ours(pixel_values=batch.pixels, **batch.tokens)
    torch.testing.assert_close(output.image_embeds, expected["image_features"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.text_embeds, expected["text_features"], atol=1e-5, rtol=0)
    assert batch.padded.shape == (tiny.batch, 77)
    assert output.logit_scale.exp().item() == pytest.approx(expected["logit_scale"].item())


def test_all_sides_have_the_same_loss(tiny, monkeypatch):
    pytest.importorskip("open_clip")
    pytest.importorskip("sentence_transformers")
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = type(tiny.text_config()).from_dict(tiny.text_config().to_dict() | no_dropout)
    monkeypatch.setattr(Settings, "text_config", lambda self: config)
    ours = sides.our_model(tiny)
    open_clip, router = sides.open_clip_model(tiny), sides.sentence_transformers_model(tiny)
    routes = router[0].sub_modules
    for image, text in (
        (open_clip.visual.proj, open_clip.text.proj),
        (routes["image"][-1].linear, routes["text"][-1].linear),
    ):
        image.load_state_dict(ours.visual_projection.state_dict())
        text.load_state_dict(ours.text_projection.state_dict())
    batch = sides.make_batches(tiny, count=1)[0]
    losses = [
        sides.our_step(ours, tiny)(batch),
        sides.open_clip_step(open_clip, tiny)(batch),
        sides.sentence_transformers_step(router, tiny)(batch),
    ]
    assert losses[1].item() == pytest.approx(losses[0].item(), abs=1e-4)
    assert losses[2].item() == pytest.approx(losses[0].item(), abs=1e-4)


def test_without_a_peer_a_row_says_what_to_install(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    (row,) = benchmark.run_rows("embed_captions", tiny)
    assert "pip install -e '.[benchmark]'" in row["unavailable"]
    report = {"machine": _about(), "size": "tiny", "rows": [row]}
    assert row["unavailable"] in benchmark.markdown(report)


def test_the_table_says_what_is_under_its_target(tmp_path):
    rows = [
        Row("train step: x", Measured("a", [3.0, 3.1], "pairs/s"), Measured("b", [2.0, 2.0], "pairs/s"), 2.0),
        Row("loss", Measured("tiles", [0.2], "s"), Measured("whole", [0.5], "s"), 0.5, at_least=False),
        Row("memory", Measured("tiles", [1234.0], "MB"), None, 600.0, at_least=False),
    ]
    report = {"machine": _about(), "size": "full", "rows": [row.as_json() for row in rows]}
    lines = benchmark.markdown(report).splitlines()
    assert (
        lines[2] == "| train step: x | 3.05 pairs/s | 2 pairs/s | 1.52 × | 2: 1.5 to 1.55 | ≥ 2 | **under target** |"
    )
    assert lines[3] == "| loss | 0.2 s | 0.5 s | 0.4 × | 1 | ≤ 0.5 | met |"
    assert lines[4] == "| memory | 1,234 MB |  | 1,234 MB | 1 | ≤ 600 | **over target** |"
    benchmark.draw(report, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rounds", "0"], "0 is less than 1"),
        (["--rows", "steps"], "invalid choice: 'steps'"),
        (["--device", "cuda"], "no GPU is visible"),
        (["--output", __file__], "give a folder"),
    ],
)
def test_bad_arguments_end_in_one_line(arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(arguments)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1


READY = """
import multiprocessing, runpy, sys

fresh = multiprocessing.get_context
multiprocessing.get_context = lambda method: fresh("fork")  # ones that import everything anew are in the test below
script = sys.argv.pop(1)
sys.path.insert(0, script.rpartition("/")[0])
runpy.run_path(script, run_name="__main__")
"""


def test_a_run_of_toy_towers_fills_the_folder(tmp_path):
    rows = ["embed_captions", "loss_time", "trainer", "frozen_towers", "frozen_text", "opening"]
    report = _report_of(tmp_path, rows, lambda command: run_code(READY, *command))
    assert {row["row"] for row in report["rows"]} == {
        "embed_captions", "loss_time", "trainer", "frozen_towers", "frozen_text", "opening",
    }  # fmt: skip


@pytest.mark.slow
def test_every_row_runs_on_toy_towers(tmp_path):
    run = functools.partial(subprocess.run, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    report = _report_of(tmp_path, ROWS, lambda command: run([sys.executable, *command]))
    assert {row["row"] for row in report["rows"]} == set(ROWS)


def _report_of(folder: Path, rows: Iterable[str], start: Callable[[list[str]], subprocess.CompletedProcess]) -> dict:
    """The script's report, after a look at what holds for every row."""
    command = [str(SCRIPTS / "benchmark.py"), "--tiny", "--rounds", "2", "--output", str(folder), "--rows", *rows]
    run = start(command)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("| | hf_clip | peer |")
    report = json.loads((folder / "benchmark.json").read_text())
    assert report["machine"]["matrix_product_gflops"]["float32"] > 0
    assert report["machine"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    for row in report["rows"]:
        assert row["name"] in run.stdout
        if "unavailable" in row:
            assert "pip install" in row["unavailable"] or "torch.compile" in row["unavailable"]
            continue
        for side in (row["ours"], row["peer"]):
            assert side is None or sorted(side["values"])[0] <= side["median"] <= sorted(side["values"])[-1]
        divisor = row["peer"]["median"] if row["peer"] else 1
        assert row["figure"] == pytest.approx(row["ours"]["median"] / divisor)
        if row["target"] is not None:
            assert row["met"] == ((row["figure"] >= row["target"]) == row["at_least"])
    if any("ours" in row for row in report["rows"]):
        assert (folder / "benchmark.png").is_file()
    return report


def _about() -> dict:
    return {
        "date": "2026-11-01T12:00:00+00:00",
        "command": "python scripts/benchmark.py",
        "device": "cpu",
        "processor": "a processor",
        "cores": 2,
        "threads": 2,
        "matrix_product_gflops": {"float32": 300.0},
        "versions": {"torch": "2.9"},
    }
