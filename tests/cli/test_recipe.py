"""`hf-clip recipe`, and `--recipe` under `--config` under the command line."""

import json
from pathlib import Path

import pytest
import yaml

from hf_clip.cli.main import main
from hf_clip.cli.train import parse
from hf_clip.core.errors import InputError
from hf_clip.recipes import list_launches, list_recipes


def test_the_list_names_every_file_with_a_sentence(capsys):
    assert main(["recipe"]) == 0
    out = capsys.readouterr().out
    assert (
        "  locked_text    The text tower stays as it is, and the image tower learns to see what it speaks of\n" in out
    )
    assert all(f"  {name} " in out for name in list_recipes() | list_launches())
    assert main(["recipe", "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == (list_recipes() | list_launches()).keys()


@pytest.mark.parametrize("name", ["chinese", "ddp_8_gpus"])
def test_one_is_printed_or_found(name, capsys):
    assert main(["recipe", name]) == 0
    text = capsys.readouterr().out
    assert main(["recipe", name, "--path"]) == 0
    assert Path(capsys.readouterr().out.strip()).read_text() == text


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["recipe", "locked"], "there is no recipe 'locked': choose one of chinese, from_scratch"),
        (["recipe", "--path"], "--path needs the name of a recipe"),
        (["train", "--recipe", "locked"], "there is no recipe 'locked': choose one of chinese, from_scratch"),
        (["train", "--recipe", "my.yaml"], "a file of your own goes with --config"),
        (["train", "--recipe", "ddp_8_gpus"], "there is no recipe 'ddp_8_gpus'"),
        (["embed", "--recipe", "locked_text"], "unknown setting --recipe"),
    ],
)
def test_what_there_is_not(command, message, capsys):
    assert main(command) == 2
    assert message in capsys.readouterr().err


def test_a_file_stands_above_a_recipe_and_the_command_line_above_both(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("projection_dim: 7\nlearning_rate: 2e-3\n")
    written = yaml.safe_load(list_recipes()["locked_text"].read_text())
    assert (written["projection_dim"], written["freeze_text"]) == (256, True)
    line = ["--config", str(file), "--recipe", "locked_text", "--learning_rate", "3e-3"]
    towers, _, _, _, args, kept = parse([*line, "--train_data", "x", "--output_dir", str(tmp_path)])
    assert (towers.projection_dim, args.learning_rate, args.freeze_text) == (7, 3e-3, True)
    assert "recipe" not in kept


def test_a_file_cannot_name_a_recipe(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("recipe: locked_text\n")
    with pytest.raises(InputError, match="line 1: unknown setting recipe"):
        parse(["--config", str(file), "--train_data", "x", "--output_dir", str(tmp_path)])
