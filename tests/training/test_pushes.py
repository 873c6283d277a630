"""What a run sends to a Hub that is run here: each `hub_strategy`, the same repository as `hf-clip publish`."""

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import peft
import pytest
from conftest import CODE, tiny_model, write_pictures
from huggingface_hub import ModelCard
from training_runs import make_trainer
from transformers import AutoModel, TrainerCallback

from hf_clip.cli.main import main
from hf_clip.core.errors import InputError
from hf_clip.publishing import hub_calls
from hf_clip.training import pushes
from hf_clip.training.facts import Origin


@pytest.fixture
def data(tmp_path):
    return write_pictures(tmp_path / "pictures", count=8)


@pytest.fixture
def without_examples(monkeypatch):
    monkeypatch.setattr("hf_clip.publishing.card.render.run_examples", lambda folder, name, examples: examples)


def run(tmp_path, data, **settings):
    """4 steps, saved after the second and the fourth."""
    defaults = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 2, "push_to_hub": True,
                "hub_model_id": "user/name"}  # fmt: skip
    return make_trainer(tmp_path / "run", data, **(defaults | settings))


def files_of(hub, name="user/name"):
    return {path: file.content for path, file in hub.repos[name].head().files.items() if path != ".gitattributes"}


def titles(hub):
    return [commit.title for commit in hub.repos["user/name"].commits][1:]


def check_whole(files):
    expected = {"README.md", "config.json", "model.safetensors", "processor_config.json", "tokenizer.json"}
    assert expected | CODE <= set(files)
    assert not [name for name in files if name.endswith("training_args.bin")]


def test_push_to_hub_gives_what_publish_gives(own_hub, tmp_path, data, without_examples):
    trainer = run(tmp_path, data, push_to_hub=False, save_strategy="no")
    trainer.train()
    published = trainer.push_to_hub("my words", license="apache-2.0", language=["en"])
    head = own_hub.repos["user/name"].head()
    assert (head.title, published.revision) == ("my words", head.sha)
    by_trainer = files_of(own_hub)
    check_whole(by_trainer)
    card = by_trainer["README.md"].decode()
    assert "license: apache-2.0" in card
    assert "Training procedure" not in card  # the Trainer's own
    assert json.loads(by_trainer["training.json"])["steps"] == 4
    arguments = ["--model", str(tmp_path / "run"), "--repo_id", "user/other", "--license", "apache-2.0"]
    assert main(["publish", *arguments, "--language", "en"]) == 0
    by_command = files_of(own_hub, "user/other")
    assert by_command.keys() == by_trainer.keys()
    differing = {name for name, content in by_command.items() if content != by_trainer[name]}
    assert differing == {"README.md"}
    assert (
        by_command["README.md"]
        .decode()
        .replace("user/other", "user/name")
        .replace("model_name: other", "model_name: name")
        == by_trainer["README.md"].decode()
    )


def test_in_the_background_it_gives_a_future(own_hub, tmp_path, data, without_examples):
    trainer = run(tmp_path, data, push_to_hub=False)
    assert trainer.push_to_hub(blocking=False).result().changed
    check_whole(files_of(own_hub))


@pytest.mark.parametrize(
    ("strategy", "expected", "folders"),
    [
        ("end", [], set()),
        ("every_save", ["step 2", "step 4"], set()),
        ("checkpoint", ["step 2", "step 4"], {"last-checkpoint"}),
        ("all_checkpoints", ["step 2", "step 4"], {"checkpoint-2", "checkpoint-4"}),
    ],
)
def test_every_strategy(strategy, expected, folders, own_hub, tmp_path, data, without_examples):
    trainer = run(tmp_path, data, hub_strategy=strategy, hub_always_push=True, save_total_limit=1)
    trainer.train()
    trainer._finish_current_push()
    assert titles(own_hub) == [f"Training in progress, {step}" for step in expected]
    found = files_of(own_hub)
    assert {name.split("/")[0] for name in found if "checkpoint" in name and "/" in name} == folders
    if expected:
        check_whole(found)
    for folder in folders:
        state = json.loads(found[f"{folder}/trainer_state.json"])
        assert state["global_step"] == (2 if folder.endswith("-2") else 4)
        assert {f"{folder}/optimizer.pt", f"{folder}/scheduler.pt", f"{folder}/model.safetensors"} <= set(found)
    assert not any(str(tmp_path).encode() in content for content in found.values())
    trainer.save_model()  # as `Trainer` has it, this publishes
    assert titles(own_hub)[len(expected) :] == ["Model save"]
    check_whole(files_of(own_hub))
    assert not (tmp_path / "run" / ".staging").exists()


def test_a_private_repository_and_another_branch(own_hub, tmp_path, data, without_examples):
    trainer = run(tmp_path, data, save_strategy="no", max_steps=1, hub_private_repo=True, hub_revision="experiment")
    assert own_hub.repos["user/name"].private
    trainer.train()
    trainer.push_to_hub()
    assert "model.safetensors" in own_hub.repos["user/name"].head("experiment").files
    assert "model.safetensors" not in files_of(own_hub)


def test_from_what_was_pushed_training_goes_on(own_hub, tmp_path, data, without_examples):
    trainer = run(tmp_path, data, hub_strategy="checkpoint", max_steps=2)
    trainer.train()
    trainer._finish_current_push()
    for name, content in files_of(own_hub).items():
        if name.startswith("last-checkpoint/"):
            file = tmp_path / "again" / name.replace("last-checkpoint", "checkpoint-2")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    resumed = make_trainer(tmp_path / "again", data, num_train_epochs=2)
    resumed.train(resume_from_checkpoint=str(tmp_path / "again" / "checkpoint-2"))
    assert resumed.state.global_step == 4


def test_what_the_hub_does_not_take_in_between_does_not_stop_a_run(own_hub, tmp_path, data, without_examples, caplog):
    class Break(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 1:
                own_hub.fault("POST /api/models/user/name/commit", times=1, status=500)

    trainer = run(tmp_path, data, hub_strategy="every_save", hub_always_push=True, callbacks=[Break()])
    trainer.train()
    trainer._finish_current_push()
    assert "this checkpoint was not pushed, and training goes on" in caplog.text
    assert titles(own_hub) == ["Training in progress, step 4"]


def test_a_token_that_may_not_write_is_refused_before_training(own_hub, tmp_path, data):
    with pytest.raises(InputError, match="may not write"):
        run(tmp_path, data, hub_token=own_hub.read_token)
    assert not own_hub.repos


def test_a_push_that_fails_at_the_end_leaves_the_run_whole(own_hub, tmp_path, data, without_examples):
    trainer = run(tmp_path, data, push_to_hub=False)
    trainer.train()
    own_hub.fault("POST /api/models/user/name/commit", times=5, status=500)
    with pytest.raises(InputError, match="is in trouble"):
        trainer.push_to_hub()
    assert AutoModel.from_pretrained(tmp_path / "run")
    assert (tmp_path / "run" / "README.md").is_file()


def test_a_planted_token_goes_nowhere(own_hub, tmp_path, data, without_examples, capfd, caplog):
    caplog.set_level("DEBUG", "hf_clip")
    trainer = run(
        tmp_path,
        data,
        hub_token=own_hub.token,
        hub_strategy="all_checkpoints",
        report_to=["tensorboard"],
        hub_always_push=True,
    )
    trainer.train()
    trainer.push_to_hub()
    told = capfd.readouterr()
    assert own_hub.token not in told.out + told.err + caplog.text
    for content in files_of(own_hub).values():
        assert own_hub.token.encode() not in content
    for commit in own_hub.repos["user/name"].commits:
        assert own_hub.token not in commit.title


# ---- what must not end a run --------------------------------------------------------------------------------------


def pushed_in_between(tmp_path, data, **settings):
    trainer = run(tmp_path, data, **({"hub_strategy": "checkpoint", "hub_always_push": True} | settings))
    trainer.train()
    trainer._finish_current_push()
    assert trainer.state.global_step == 4
    return trainer


def fail(error):
    def failing(*args, **settings):
        raise error

    return failing


def test_where_no_links_are_allowed_files_are_copied(own_hub, tmp_path, data, without_examples, monkeypatch):
    monkeypatch.setattr("os.link", fail(PermissionError(1, "Operation not permitted")))
    pushed_in_between(tmp_path, data)
    assert "last-checkpoint/optimizer.pt" in files_of(own_hub)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyError("name"), InputError("so it is")])
@pytest.mark.parametrize("step", ["pushes.stage", "pushes._link_checkpoint", "contrastive.pair_facts"])
def test_whatever_fails_in_a_push_in_between_is_a_warning(
    step, error, own_hub, tmp_path, data, without_examples, monkeypatch, caplog
):
    monkeypatch.setattr(f"hf_clip.training.{step}", fail(error))
    pushed_in_between(tmp_path, data)
    assert caplog.text.count("this checkpoint was not pushed, and training goes on: ") == 2
    assert str(error) in caplog.text
    assert not (tmp_path / "run" / ".staging").exists()


def test_what_fails_in_the_thread_is_told(own_hub, tmp_path, data, without_examples, monkeypatch, caplog):
    monkeypatch.setattr("hf_clip.training.pushes.push_folder", fail(ZeroDivisionError("of the client")))
    pushed_in_between(tmp_path, data)
    assert "was not pushed, and training goes on: ZeroDivisionError: of the client" in caplog.text


def test_a_token_in_what_training_goes_on_from_stays_here(
    own_hub, tmp_path, data, without_examples, monkeypatch, caplog
):
    class Tell(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            state.trial_name = args.hub_token

    pushed_in_between(tmp_path, data, hub_token=own_hub.token, callbacks=[Tell()])
    assert titles(own_hub) == []
    assert "would hold an access token" in caplog.text
    assert own_hub.token not in caplog.text


def test_settings_of_a_checkpoint_tell_of_no_folder(own_hub, tmp_path, data, without_examples):
    model = tiny_model()
    model.config.text_config.tokenizer_folder = str(tmp_path / "bert")
    pushed_in_between(tmp_path, data, model=model)
    config = json.loads(files_of(own_hub)["last-checkpoint/config.json"])
    assert config["text_config"]["tokenizer_folder"] == "bert"


def test_a_hub_that_hangs_ends_no_run(own_hub, tmp_path, data, without_examples, monkeypatch, caplog):
    monkeypatch.setattr(hub_calls, "SILENCE", 0.1)

    class Hang(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 1:
                own_hub.fault("PUT /storage", times=99, hang=True)

    trainer = run(tmp_path, data, hub_strategy="every_save", callbacks=[Hang()])
    trainer.train()
    assert "this checkpoint was not pushed, and training goes on: " in caplog.text
    assert (tmp_path / "run" / "checkpoint-4" / "model.safetensors").is_file()
    assert not (tmp_path / "run" / ".staging").exists()
    with pytest.raises(InputError, match="did not answer PUT"):
        trainer.push_to_hub()


def test_ctrl_c_gives_up_pushes_that_are_waited_for(monkeypatch):
    """Begun or not; whether it comes as Python's own interrupt or was taken by somebody else."""
    for is_taken in (False, True):
        release, ended, asked = threading.Event(), [], []
        monkeypatch.setattr(pushes, "end_all", lambda ended=ended, release=release: (ended.append(1), release.set()))
        with ThreadPoolExecutor(1) as pool:
            jobs = [pool.submit(release.wait), pool.submit(ended.append, "begun after all")]
            timer = asked.append if is_taken else lambda _: os.kill(os.getpid(), signal.SIGINT)
            threading.Timer(0.1, timer, [1]).start()
            with pytest.raises(KeyboardInterrupt, match="checkpoints are whole, the last was not pushed"):
                pushes.finish(jobs, lambda asked=asked: bool(asked))
        assert ended == [1]
        assert jobs[1].cancelled()


def test_after_a_ctrl_c_that_ended_the_training_what_it_saved_is_pushed():
    with ThreadPoolExecutor(1) as pool:
        jobs = [pool.submit(time.sleep, 0.3)]
        pushes.finish(jobs, lambda: True)
        assert jobs[0].done()


def test_into_a_repository_of_others_no_run_begins(own_hub, tmp_path, data, without_examples):
    own_hub.commit("user/name", {"adapter_config.json": b"{}", "notes.txt": b"n"})
    with pytest.raises(InputError, match=r"user/name holds an adapter: adapter_config.json, notes.txt"):
        run(tmp_path, data)
    trainer = run(tmp_path, data, push_to_hub=False)
    with pytest.raises(InputError, match="holds an adapter"):
        trainer.push_to_hub()
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").glob("*"))
    assert trainer.push_to_hub(overwrite=True).changed
    assert files_of(own_hub)["notes.txt"] == b"n"
    assert "adapter_config.json" not in files_of(own_hub)


def test_the_train_command_looks_for_the_token_before_it_opens_anything(own_hub, tmp_path, data, monkeypatch, capsys):
    monkeypatch.setattr("hf_clip.cli.train._open_sources", fail(AssertionError("too late")))
    arguments = ["train", "--train_data", str(data), "--output_dir", str(tmp_path / "run"), "--push_to_hub"]
    for token, says in ((own_hub.read_token, "may not write"), (own_hub.expired_token, "does not take the token")):
        monkeypatch.setenv("HF_TOKEN", token)
        assert main(arguments) == 2
        assert says in capsys.readouterr().err
    monkeypatch.delenv("HF_TOKEN")
    assert main(arguments) == 2
    assert "there is no token for" in capsys.readouterr().err
    assert not own_hub.repos


# ---- adapters -----------------------------------------------------------------------------------------------------


def test_an_adapter_is_published_over_what_it_was_started_from(own_hub, tmp_path, data, without_examples):
    config = peft.LoraConfig(r=2, target_modules=r"text_model\..*\.query")
    model = peft.get_peft_model(tiny_model(), config)
    trainer = run(tmp_path, data, model=model, hub_strategy="every_save", hub_always_push=True)
    trainer.origin = Origin(started_from="somebody/base")
    trainer.train()
    trainer._finish_current_push()
    assert titles(own_hub) == ["Training in progress, step 2", "Training in progress, step 4"]

    def base():
        return json.loads(files_of(own_hub)["adapter_config.json"])["base_model_name_or_path"]

    assert base() == "somebody/base"
    trainer.push_to_hub(adapter_of="somebody/other")
    assert base() == "somebody/other"
    trainer.push_to_hub()
    assert base() == "somebody/base"


# ---- the Trainer's words ------------------------------------------------------------------------------------------


def test_the_trainer_s_words_for_a_card_are_taken(own_hub, tmp_path, data, without_examples):
    trainer = run(tmp_path, data, push_to_hub=False)
    trainer.push_to_hub(
        language="en", license="mit", tags="birds", finetuned_from="somebody/base", dataset_tags="somebody/pictures",
        dataset="Pictures", tasks=None, dataset_args=None,
    )  # fmt: skip
    said = ModelCard(files_of(own_hub)["README.md"].decode()).data
    assert (said.language, said.license) == (["en"], "mit")
    assert "somebody/base" in said.base_model
    assert said.datasets == ["somebody/pictures"]
    assert "birds" in said.tags
    trainer.create_model_card(dataset=["somebody/more"], model_name="user/name")
    assert ModelCard.load(tmp_path / "run" / "README.md").data.datasets == ["somebody/more"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"licence": "mit"}, "unknown 'licence': choose one of model_name, license"),
        ({"name": "x"}, "unknown 'name': choose one of model_name"),
        ({"tasks": "retrieval"}, "tasks is not taken: .* with tags"),
        ({"dataset_args": "default"}, "dataset_args is not taken: .* with description"),
        ({"finetuned_from": "a/b", "base_model": "a/c"}, "the same: give only base_model"),
    ],
)
def test_a_word_that_is_unknown_is_refused_before_anything_is_saved(words, message, own_hub, tmp_path, data):
    trainer = run(tmp_path, data, push_to_hub=False)
    with pytest.raises(InputError, match=message):
        trainer.push_to_hub(**words)
    with pytest.raises(InputError, match=message):
        trainer.create_model_card(**words)
    assert not own_hub.repos
    assert not any((tmp_path / "run").glob("*"))
