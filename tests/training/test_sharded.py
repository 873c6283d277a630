"""FSDP2 as accelerate does it: refused without a GPU, and, with that refusal lifted, exact."""

import processes
import pytest
import torch
from conftest import write_pictures
from training_runs import make_trainer

from hf_clip import HFClipModel
from hf_clip.core.errors import InputError


@pytest.mark.parametrize("by_launcher", [True, False])
def test_fsdp_without_a_gpu_is_refused(by_launcher, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", str(by_launcher).lower())
    with pytest.raises(InputError, match="FSDP needs GPUs"):
        make_trainer(tmp_path / "run", pictures, fsdp=not by_launcher)


def test_sharded_training_is_that_of_one_process(tmp_path):
    """With channels-last towers as they come, chunks, checkpoints, and a model that can be opened at the end."""
    data = write_pictures(tmp_path / "pictures", count=7)
    processes.run(processes.train_sharded, 2, str(tmp_path), str(data))
    write_pictures(data, count=7)
    settings = {"max_steps": 3, "freeze_vision": True, "per_device_train_batch_size": 6}
    trainer = make_trainer(tmp_path / "one", data, **settings)
    trainer.train()
    (data / "2.png").write_bytes(b"")
    metrics = trainer.evaluate()
    for rank in range(2):
        result = torch.load(tmp_path / f"{rank}.pt")
        assert result["sharded"]
        assert (result["metrics"]["eval_images"], result["metrics"]["eval_skipped_images"]) == (6, 1)
        assert result["metrics"]["eval_loss"] == pytest.approx(metrics["eval_loss"], rel=1e-3)
    once, resumed = (HFClipModel.from_pretrained(tmp_path / name).state_dict() for name in ("run", "resumed"))
    for name, weight in trainer.model.state_dict().items():
        torch.testing.assert_close(once[name], weight, rtol=1e-3, atol=1e-5, msg=name)
        torch.testing.assert_close(resumed[name], once[name], rtol=0, atol=0, msg=name)
