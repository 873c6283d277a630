"""Two and three gloo processes against one process on the same pairs: value and every gradient, in float64."""

import functools
import json

import processes
import pytest
import torch
from conftest import write_pictures
from processes import ONE_EMPTY, UNEQUAL, Step, one_process
from training_runs import make_trainer

from hf_clip import HFClipModel
from hf_clip.training.distributed import gather_batch, in_batch_accuracy

STEPS = {
    world_size: [
        step
        for wrapping in ("ddp", "fsdp2")
        for step in [
            Step(wrapping, UNEQUAL[world_size], duplicates=False),
            *(
                Step(wrapping, sizes, loss, tile_size=tile_size, chunk_size=chunk_size)
                for loss in ("infonce", "sigmoid")
                for sizes in (UNEQUAL[world_size], ONE_EMPTY[world_size])
                for tile_size in (None, 2)
                for chunk_size in (None, 3)
                if sizes == UNEQUAL[world_size] or bool(tile_size) == bool(chunk_size)
            ),
        ]
    ]
    for world_size in (2, 3)
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Starts the processes once for all steps of so many processes: rank → step → what it gave."""

    @functools.cache
    def take(world_size: int) -> list[list[dict]]:
        folder = tmp_path_factory.mktemp("steps")
        processes.run(processes.take_steps, world_size, str(folder), STEPS[world_size])
        return [torch.load(folder / f"{rank}.pt") for rank in range(world_size)]

    return take


@pytest.mark.parametrize("step", STEPS[2] + STEPS[3], ids=str)
def test_processes_together_compute_what_one_would(step, results):
    expected_loss, expected_grads = one_process(step.loss, step.duplicates)
    number = STEPS[len(step.sizes)].index(step)
    for rank, steps in enumerate(results(len(step.sizes))):
        result = steps[number]
        assert result["sharded"] == (step.wrapping == "fsdp2")
        torch.testing.assert_close(result["loss"], expected_loss)
        assert result["grads"].keys() == expected_grads.keys()
        for name, grad in expected_grads.items():
            torch.testing.assert_close(result["grads"][name], grad, rtol=1e-7, atol=1e-10, msg=f"rank {rank}: {name}")


def test_masking_duplicates_changes_the_loss():
    """Without this the tests above could pass with ids ignored everywhere."""
    assert abs(one_process()[0] - one_process(duplicates=False)[0]) > 1e-3


def test_a_local_loss_is_refused_and_the_gathering_function_named(tmp_path):
    processes.run(processes.local_loss, 2, str(tmp_path))
    for rank in range(2):
        message = (tmp_path / f"{rank}.txt").read_text()
        assert "hf_clip.training.distributed.global_contrastive_loss" in message
        assert "negatives" in message


def test_the_trainer_on_two_processes_is_the_trainer_on_one(tmp_path):
    """Weights after three steps, and retrieval over 7 pictures: an odd number, so one process pads its last batch."""
    data = write_pictures(tmp_path / "pictures", count=7)
    processes.run(processes.train_and_evaluate, 2, str(tmp_path), str(data), 3)
    processes.run(processes.train_and_evaluate, 1, str(tmp_path), str(data), 3)
    two, one = (torch.load(tmp_path / f"trained-{n}.pt") for n in (2, 1))
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weight, rtol=1e-3, atol=1e-5, msg=name)
    assert two["metrics"]["eval_images"] == 7
    for name in one["metrics"]:
        if "retrieval" in name or name == "eval_loss":
            assert two["metrics"][name] == pytest.approx(one["metrics"][name], rel=1e-3), name
    whole = tmp_path / "run-2" / "checkpoint-3"
    assert {"model.safetensors", "optimizer.pt", "trainer_state.json", "rng_state_0.pth", "rng_state_1.pth"} <= {
        file.name for file in whole.iterdir()
    }
    assert not (tmp_path / "run-2" / ".staging").exists()


def test_three_processes_count_each_picture_once(tmp_path):
    """8 pictures, in batches of 2, for 3 processes: the last batches are padded with pictures that came already."""
    data = write_pictures(tmp_path / "pictures", count=8, captions_each=2)
    labelled = data / "metadata.jsonl"
    rows = [json.loads(line) for line in labelled.read_text().splitlines()]
    labelled.write_text("".join(json.dumps(row | {"label": "ab"[i % 2]}) + "\n" for i, row in enumerate(rows)))
    processes.run(processes.evaluate, 3, str(tmp_path), str(data))
    trainer = make_trainer(tmp_path / "one", data, **processes.EVALUATION)
    alone, predicted_alone = trainer.evaluate(), trainer.predict(processes.wrapped(trainer.eval_dataset))
    assert (predicted_alone.metrics["test_images"], predicted_alone.metrics["test_captions"]) == (7, 14)
    assert (alone["eval_images"], alone["eval_captions"]) == (8, 16)
    assert {"eval_zero_shot_acc1", "eval_knn3_pooled_leave_one_out_acc1"} <= alone.keys()
    for rank in range(3):
        metrics, predicted, refused = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        assert [line.partition(" holds other rows in each process")[0] for line in refused] == [
            "the evaluation set", "the training set",
        ]  # fmt: skip
        (images, texts), owners, of_wrapped = predicted
        for found, expected in ((metrics, alone), (of_wrapped, predicted_alone.metrics)):
            for name in expected:
                if not name.endswith(("runtime", "per_second")):
                    assert found[name] == pytest.approx(expected[name], rel=1e-5), (rank, name)
        for found, expected in zip((images, texts), predicted_alone.predictions, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert owners.tolist() == predicted_alone.label_ids.tolist() == [i // 2 for i in range(14)]


def test_in_batch_accuracy_by_hand():
    images = torch.eye(4)
    texts = torch.eye(4)[[0, 2, 1, 3]]  # the second and third captions are swapped
    assert in_batch_accuracy(gather_batch(images, texts), 4).item() == 2


def test_what_two_processes_measure_is_the_model_that_they_save(tmp_path):
    """Each process moves BatchNorm statistics of its own; and both must draw the same order to share it out."""
    data = write_pictures(tmp_path / "pictures", count=12, captions_each=3)
    processes.run(processes.train_with_moving_statistics, 2, str(tmp_path), str(data))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert sorted(first["rows"] + second["rows"]) == list(range(12))
    saved = make_trainer(
        tmp_path / "one", data, model=HFClipModel.from_pretrained(tmp_path / "run"), per_device_train_batch_size=6
    )
    metrics = saved.evaluate()
    for name in ("eval_loss", "eval_image_retrieval_recall@1", "eval_text_retrieval_recall@5"):
        assert first["metrics"][name] == second["metrics"][name] == pytest.approx(metrics[name], rel=1e-5), name
