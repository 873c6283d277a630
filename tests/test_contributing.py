"""What CONTRIBUTING.md shows of a loss, a task, a source of towers and a command works as it stands there."""

import json
import re
import sys
from pathlib import Path, PurePosixPath
from types import ModuleType

import numpy as np
import pytest
import torch
from transformers import AutoModel

import hf_clip
from hf_clip.cli import commands, main
from hf_clip.evaluation.tasks.registry import TASKS
from hf_clip.models.loss_hf_clip import GlobalBatch
from hf_clip.models.tower_sources import registry

TEXT = Path(__file__).parents[1].joinpath("CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def shown(monkeypatch):
    """Each file that is shown, as a module of the package."""

    def build(name: str) -> ModuleType:
        (text,) = (block for block in BLOCKS if f"/{name}.py, and" in block)
        place = PurePosixPath("hf_clip", re.search(r"^# (\S+)\.py, and", text, re.MULTILINE)[1])
        module = ModuleType(".".join(place.parts), "")
        module.__package__ = ".".join(place.parent.parts)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(text, f"{place}.py", "exec"), module.__dict__)
        return module

    return build


def test_each_is_shown_on_some_ten_lines():
    assert len(BLOCKS) == 4
    for block in BLOCKS:
        assert len([line for line in block.splitlines() if line.strip() and not line.startswith("#")]) <= 12, block


def test_a_loss(shown):
    loss = shown("hinge_hf_clip").HINGE
    images, texts = torch.nn.functional.normalize(torch.randn(2, 6, 4, dtype=torch.double), dim=-1)
    ids = torch.tensor([0, 1, 2, 3, 4, 1])
    scale = torch.zeros(1, dtype=torch.double)
    expected = sum(
        max(0.0, 1 + float(images[i] @ texts[j] - images[i] @ texts[i]))
        for i in range(6)
        for j in range(6)
        if i != j and ids[i] != ids[j]
    )
    whole = GlobalBatch(images, texts, image_ids=ids)
    assert loss(images, texts, scale, batch=whole).item() == pytest.approx(expected)
    halves = [
        loss(images[rows], texts[rows], scale, batch=GlobalBatch(images, texts, ids, offset=rows.start))
        for rows in (slice(0, 2), slice(2, 6))
    ]
    assert sum(halves).item() == pytest.approx(expected)


def test_a_task(shown, model_folder, pictures, monkeypatch):
    monkeypatch.setitem(TASKS, "spread", shown("spread").Spread())
    quiet = hf_clip.EmbedOptions(progress=False)
    results = hf_clip.evaluate(
        str(model_folder), pictures, hf_clip.EvaluationSettings(tasks=["spread"], resamples=20), options=quiet
    )
    (figure,) = results.figures
    embeds = hf_clip.embed(str(model_folder), pictures, options=quiet).image_embeds.double().numpy()
    assert (figure.metric, figure.images) == ("spread_mean", 8)
    assert figure.value == pytest.approx(1 - np.mean(embeds @ embeds.T), abs=1e-6)


def test_a_source_of_towers(shown, tower_folders, monkeypatch, tmp_path):
    (tmp_path / "animals").mkdir()
    (tmp_path / "animals" / "lion").symlink_to(tower_folders[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "SOURCES", [shown("zoo").Zoo(), *registry.SOURCES])
    expected = AutoModel.from_pretrained(tower_folders[0]).state_dict()
    for name, same in (("zoo/lion", True), ("scratch/zoo/lion", False)):
        opened = hf_clip.create_model_and_processor(name, tower_folders[1])[0].vision_model.state_dict()
        assert all(torch.equal(opened[name], weight) for name, weight in expected.items()) is same


def test_a_command(shown, pictures, monkeypatch, capsys):
    shown("count")
    for module in (commands, main):
        monkeypatch.setattr(module, "COMMANDS", (*commands.COMMANDS, "count"))
    assert main.main(["count", "--data", str(pictures)]) == 0
    assert capsys.readouterr().out == "8 images\n"
    assert main.main(["count", "--data", str(pictures), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"images": 8}
