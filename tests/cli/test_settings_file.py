"""YAML files of settings mean what the same words mean on the command line, and their faults are named by line."""

import json

import pytest
import yaml
from conftest import tiny_model

from hf_clip.cli.commands import COMMANDS, find_command
from hf_clip.cli.main import main
from hf_clip.cli.train import parse
from hf_clip.core.errors import InputError


@pytest.fixture
def file(tmp_path):
    def write(text: str) -> str:
        (tmp_path / "my.yaml").write_text(text)
        return str(tmp_path / "my.yaml")

    return write


def train(file: str, *arguments: str):
    needed = ["--train_data", "x", "--output_dir", "y"]
    return parse(["--config", file, *needed, *arguments])


def test_values_of_every_kind(file):
    towers, data, _, output, args, _ = train(
        file(
            "learning_rate: 1e-3\n"  # a string to YAML 1.1
            "num_train_epochs: 3\n"
            "freeze_text: yes\n"
            "mask_duplicates: false\n"
            "save_strategy: no\n"  # false to YAML 1.1
            "text_pooling: null\n"
            "vision_model: '007'\n"
            "text_model: 010\n"  # 8 to YAML 1.1
            "report_to: none\n"
            "lr_scheduler_type: cosine_with_min_lr\n"
            "lr_scheduler_kwargs: {min_lr: 1e-6, name: 'true', deep: [1, true, null]}\n"
            "json: true\n"
        )
    )
    assert (args.learning_rate, args.num_train_epochs, args.freeze_text, args.mask_duplicates) == (
        1e-3,
        3,
        True,
        False,
    )
    assert (args.save_strategy, args.report_to) == ("no", [])
    assert (towers.text_pooling, towers.vision_model, towers.text_model) == (None, "007", "010")
    assert args.lr_scheduler_kwargs == {"min_lr": 1e-6, "name": "true", "deep": [1, True, None]}
    assert output.json
    assert data.train_data == ["x"]


@pytest.mark.parametrize("words", ["[tensorboard, codecarbon]", "\n  - tensorboard\n  - codecarbon"])
def test_lists_where_the_trainer_takes_a_text_or_a_list(words, file, tmp_path):
    """One word is the text; what is kept of the settings makes the same run."""
    targets = 'optim: galore_adamw\noptim_target_modules: [".*attn.*", ".*mlp.*"]\n'
    *_, args, kept = train(file(f"report_to: {words}\n{targets}"))
    assert (args.report_to, args.optim_target_modules) == (["tensorboard", "codecarbon"], [".*attn.*", ".*mlp.*"])
    *_, again, _ = parse(["--config", file(yaml.safe_dump(kept))])
    assert (again.report_to, again.optim_target_modules) == (args.report_to, args.optim_target_modules)
    *_, args, _ = train(
        file(targets.partition("optim_t")[0]), "--report_to", "none", "--optim_target_modules", "all-linear"
    )
    assert (args.report_to, args.optim_target_modules) == ([], "all-linear")
    *_, args, _ = train(file(""), "--report_to", "tensorboard", "codecarbon")
    assert args.report_to == ["tensorboard", "codecarbon"]
    *_, args, kept = train(file("debug: [underflow_overflow, tpu_metrics_debug]"))
    *_, again, _ = parse(["--config", file(yaml.safe_dump(kept))])
    assert len(again.debug) == 2
    assert again.debug == args.debug
    *_, args, _ = train(file("report_to: [all]"))
    assert "tensorboard" in args.report_to


def test_the_command_line_stands_above_the_file(file):
    config = file("model: a\ndata: b\nk: [1, 7]\njson: true\nbatch_size: 5\n")
    settings = find_command("evaluate").parse(["--config", config])
    assert (settings.model, settings.data, settings.k, settings.json, settings.batch_size) == (
        ["a"],
        "b",
        [1, 7],
        True,
        5,
    )
    settings = find_command("evaluate").parse(["--k", "3", "--config", config, "--no-json", "--data", "c"])
    assert (settings.model, settings.data, settings.k, settings.json) == (["a"], "c", [3], False)


def test_positional_settings(file):
    config = file("images: [a.png, 1.png]\nmodel: m\nlabels: a, b\n")
    assert find_command("classify").parse(["--config", config]).images == ["a.png", "1.png"]
    assert find_command("classify").parse(["c.png", "--config", config]).images == ["c.png"]


def test_evaluation_data_in_a_file_are_evaluated_each_epoch(file):
    assert train(file("eval_data: z"))[4].eval_strategy == "epoch"
    assert train(file("eval_data: z\neval_strategy: steps\neval_steps: 3"))[4].eval_strategy == "steps"
    assert train(file(""))[4].eval_strategy == "no"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nlearning_rat: 1", "my.yaml, line 1: unknown setting a"),
        ("learning_rat: 1", "my.yaml, line 1: unknown setting learning_rat: did you mean learning_rate?"),
        (
            "learning_rate: fast",
            "my.yaml, line 1: argument --learning_rate/--learning-rate: invalid float value: 'fast'",
        ),
        ("learning_rate: [1, 2]", "argument --learning_rate/--learning-rate: a list where one value belongs"),
        ("learning_rate: {a: 1}", "argument --learning_rate/--learning-rate: a mapping where a value belongs"),
        ("projection: {a: 1}", "argument --projection: a mapping where a value belongs"),
        ("freeze_text: maybe", "line 1: argument --freeze_text/--freeze-text: Truthy value expected"),
        ("seed: 1\nbf16: true\nseed: 2", "my.yaml, line 3: seed stands on line 1 already: remove one of them"),
        ("seed: 1\nlist: [1, 2", "my.yaml, line 2: no YAML: "),
        ("seed: 1\n  more: 2", "my.yaml, line 2: no YAML: mapping values are not allowed here"),
        ("- seed", "my.yaml holds no settings: write lines such as 'batch_size: 64'"),
        ("report_to: []", "argument --report_to/--report-to: an empty list"),
        ("config: other.yaml", "unknown setting config"),
        ("logging_steps:\n  - [1]", "line 2: a list holds texts and numbers only"),
        ("? [a]\n: 1", "unknown setting a list or mapping"),
    ],
)
def test_faults_are_named(file, text, message):
    with pytest.raises(InputError) as raised:
        train(file(text))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"settings file '.*nowhere.yaml' cannot be read: .*No such file"):
        train(str(tmp_path / "nowhere.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"a: \xff")
    with pytest.raises(InputError, match=r"settings file .*binary.yaml' cannot be read"):
        train(str(tmp_path / "binary.yaml"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_a_file(command, file, capsys):
    assert main([command, "--config", file("colour: red")]) == 2
    assert f"hf-clip {command}: " in (line := capsys.readouterr().err)
    assert "my.yaml, line 1: unknown setting colour" in line
    assert main([command, "--jsn"]) == 2
    assert "unknown setting --jsn: did you mean --json?" in capsys.readouterr().err


def test_a_command_from_its_file_alone(file, tmp_path, pictures, processor, capsys):
    tiny_model().save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    config = file(f"model: {tmp_path / 'model'}\ndata: {pictures}\njson: true\nk: [1]\n")
    assert main(["evaluate", "--config", config, "--output", str(tmp_path / "evaluation")]) == 0
    assert json.loads(capsys.readouterr().out)["figures"][0]["images"] == 8
