"""`compute_metrics`, `predict`, `prediction_loss_only`: what is shown of an evaluation, and joins its figures."""

import json

import numpy as np
import pytest
from conftest import write_pictures
from training_runs import make_trainer

from hf_clip.cli.main import main
from hf_clip.core.errors import InputError
from hf_clip.embeddings.encode import embed_source
from hf_clip.embeddings.options import EmbedOptions


@pytest.fixture
def data(tmp_path):
    return write_pictures(tmp_path / "pictures", count=7, captions_each=2)


def test_compute_metrics_gets_embeddings_and_each_caption_s_image(tmp_path, data):
    """Recall@1 by hand is ours; numbers of numpy come out as plain ones, under the prefix asked for."""
    seen = []

    def figures(predicted):
        images, texts = predicted.predictions
        seen.append(predicted)
        best = (texts @ images.T).argmax(1)
        return {"hits": (best == predicted.label_ids).mean(), "eval_named": np.float32(2.0)}

    trainer = make_trainer(tmp_path / "run", data, trainer={"compute_metrics": figures}, per_device_eval_batch_size=3)
    found = trainer.evaluate()
    assert found["eval_hits"] == pytest.approx(found["eval_image_retrieval_recall@1"])
    assert (found["eval_named"], type(found["eval_hits"])) == (2.0, float)
    expected = embed_source(
        trainer.model, trainer.processing_class, trainer.eval_dataset.source, options=EmbedOptions(progress=False)
    )
    for array, tensor in zip(seen[0].predictions, (expected.image_embeds, expected.text_embeds), strict=True):
        np.testing.assert_allclose(array, tensor, atol=1e-6)
    assert seen[0].label_ids.tolist() == [row for row in range(7) for _ in range(2)]

    predicted = trainer.predict(trainer.eval_dataset, metric_key_prefix="mine")
    assert predicted.metrics["mine_hits"] == found["eval_hits"]
    assert predicted.metrics["mine_named"] == 2
    np.testing.assert_array_equal(predicted.predictions[0], seen[0].predictions[0])


def test_a_figure_of_one_s_own_chooses_the_best_model(tmp_path, data):
    scores = iter([0.1, 0.7, 0.3])
    trainer = make_trainer(
        tmp_path / "run", data, num_train_epochs=3, eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, metric_for_best_model="mine",
        trainer={"compute_metrics": lambda predicted: {"mine": next(scores)}},
    )  # fmt: skip
    trainer.train()
    assert (trainer.state.best_metric, trainer.state.best_global_step) == (0.7, 2)
    assert [entry["eval_mine"] for entry in trainer.state.log_history if "eval_mine" in entry] == [0.1, 0.7, 0.3]


def test_a_metric_for_the_best_model_that_nothing_measures(tmp_path, data):
    trainer = make_trainer(
        tmp_path / "run", data, eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True,
        metric_for_best_model="mien", trainer={"compute_metrics": lambda predicted: {"mine": 1.0}},
    )  # fmt: skip
    with pytest.raises(InputError, match=r"metric_for_best_model 'mien' is none of the figures: .*eval_mine"):
        trainer.train()


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"loss": 1.0, "image_retrieval_recall@1": 0}, "gives image_retrieval_recall@1, loss, which is measured"),
        (None, "gives a NoneType: it must be a dict of figures"),
    ],
)
def test_figures_that_cannot_be(figures, message, tmp_path, data):
    trainer = make_trainer(tmp_path / "run", data, trainer={"compute_metrics": lambda predicted: figures})
    with pytest.raises(InputError, match=f"compute_metrics {message}"):
        trainer.evaluate()


def test_prediction_loss_only_measures_the_loss_alone(tmp_path, data):
    whole = make_trainer(tmp_path / "whole", data)
    alone = make_trainer(tmp_path / "alone", data, prediction_loss_only=True)
    found = alone.predict(alone.eval_dataset)
    assert found.predictions is found.label_ids is None
    speed = {"runtime", "samples_per_second", "steps_per_second"}
    assert {name.removeprefix("test_") for name in found.metrics} - speed == {"loss"}
    assert alone.evaluate()["eval_loss"] == pytest.approx(whole.evaluate()["eval_loss"]) == found.metrics["test_loss"]
    with pytest.raises(InputError, match="prediction_loss_only leaves compute_metrics nothing to look at"):
        make_trainer(tmp_path / "run", data, prediction_loss_only=True, trainer={"compute_metrics": dict})


def test_a_command_that_measures_the_loss_alone(tmp_path, data, tower_folders, capsys):
    vision, text = tower_folders
    arguments = [
        *("--vision_model", vision, "--text_model", text, "--train_data", str(data), "--eval_data", str(data)),
        *("--output_dir", str(tmp_path / "run"), "--max_steps", "1", "--per_device_train_batch_size", "4"),
        *("--use_cpu", "--prediction_loss_only", "--disable_tqdm", "true", "--report_to", "none"),
    ]
    assert main(["train", *arguments]) == 0, capsys.readouterr().err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "loss" in metrics
    assert not any("retrieval" in name for name in metrics)


def test_predictions_are_gathered_as_objects_and_batch_by_batch_on_the_cpu(tmp_path, data):
    """What these settings ask for is done in any case."""
    expected = make_trainer(tmp_path / "plain", data)
    settings = {"eval_accumulation_steps": 1, "eval_use_gather_object": True, "per_device_eval_batch_size": 2}
    found = make_trainer(tmp_path / "run", data, **settings)
    for array, other in zip(
        found.predict(found.eval_dataset).predictions, expected.predict(expected.eval_dataset).predictions, strict=True
    ):
        assert isinstance(array, np.ndarray)
        np.testing.assert_allclose(array, other, atol=1e-6)
