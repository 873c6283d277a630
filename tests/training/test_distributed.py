"""Two and three gloo processes against one process on the same pairs: value and every gradient, in float64."""

import processes
import pytest
import torch
from conftest import tiny_inputs, tiny_model, write_pictures
from training_runs import make_trainer

from hf_clip import HFClipModel
from hf_clip.training.distributed import gather_batch, global_contrastive_loss, in_batch_accuracy


def one_process(duplicates: bool, loss: str = "infonce"):
    model = tiny_model(loss=loss).eval().double()
    ids = {"image_ids": processes.IMAGE_IDS, "caption_ids": processes.CAPTION_IDS} if duplicates else {}
    loss = global_contrastive_loss(model(**tiny_inputs(pairs=7), return_logits=False), **ids)
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
@pytest.mark.parametrize(
    ("sizes", "duplicates"),
    [([4, 3], True), ([3, 4], False), ([3, 1, 3], True), ([4, 0, 3], True)],
    ids=["2", "2-plain", "3", "3-one-empty"],
)
def test_processes_together_compute_what_one_would(sizes, duplicates, loss, tmp_path):
    processes.run(processes.one_step, len(sizes), str(tmp_path), sizes, duplicates, loss)
    expected_loss, expected_grads = one_process(duplicates, loss)
    for rank in range(len(sizes)):
        result = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(result["loss"], expected_loss)
        assert result["grads"].keys() == expected_grads.keys()
        for name, grad in expected_grads.items():
            torch.testing.assert_close(result["grads"][name], grad, rtol=1e-7, atol=1e-10, msg=f"{rank} {name}")


def test_masking_duplicates_changes_the_loss():
    """Without this the tests above could pass with ids ignored everywhere."""
    assert abs(one_process(True)[0] - one_process(False)[0]) > 1e-3


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
