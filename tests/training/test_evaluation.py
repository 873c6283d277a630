"""What a trainer measures: every row once, each task, the average; and what it refuses to."""

import itertools
import json
import math
import shutil
import time

import numpy as np
import pytest
import torch
from conftest import write_labelled_pictures, write_pictures
from PIL import Image, ImageOps
from torch import nn
from torch.utils.data import ConcatDataset, StackDataset, Subset, random_split
from training_runs import make_trainer
from transformers import TrainerCallback

from hf_clip import HFClipModel, HFClipTrainingArguments
from hf_clip.core.errors import InputError
from hf_clip.data.dataset import CaptionedImages
from hf_clip.data.sources import open_source
from hf_clip.embeddings.encode import embed_source
from hf_clip.embeddings.options import EmbedOptions
from hf_clip.evaluation.outcome import Outcome
from hf_clip.evaluation.tasks.retrieval import evaluate_retrieval
from hf_clip.evaluation.tasks.zero_shot import class_embeddings, evaluate_zero_shot
from hf_clip.training import evaluation


def test_the_loss_is_of_the_images_that_have_captions(tmp_path):
    file = write_pictures(tmp_path / "pictures", count=8) / "metadata.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in (2, 3, 7):
        rows[row]["caption"] = None
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    training = write_pictures(tmp_path / "training", count=8)
    trainer = make_trainer(tmp_path / "run", training, per_device_train_batch_size=3, prediction_loss_only=True)
    source = open_source(file.parent, captions_required=False)
    some = CaptionedImages(source, trainer.processing_class.image_processor)
    expected = trainer.evaluate(Subset(some, [0, 1, 4, 5, 6]))["eval_loss"]
    assert trainer.evaluate(some)["eval_loss"] == pytest.approx(expected, rel=1e-6)
    assert "eval_loss" not in trainer.evaluate(Subset(some, [2, 7]))


def test_lists_of_numbers_are_measured_by_retrieval_alone(tmp_path):
    file = write_pictures(tmp_path / "pictures", count=8) / "metadata.jsonl"
    rows = [json.loads(line) | {"label": [i % 3]} for i, line in enumerate(file.read_text().splitlines())]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    trainer = make_trainer(tmp_path / "run", file.parent, label_column="label")
    assert trainer.evaluate()["eval_image_retrieval_recall@1"] >= 0
    trainer.args.eval_tasks = ["knn"]
    with pytest.raises(InputError, match="pictures have lists of labels, which are only numbers: give class names"):
        trainer.evaluate()


def test_evaluate_is_the_retrieval_of_every_row(tmp_path):
    data = write_pictures(tmp_path / "pictures", count=7, captions_each=2)
    (data / "3.png").write_bytes(b"")
    trainer = make_trainer(tmp_path / "run", data, per_device_eval_batch_size=4)
    metrics = trainer.evaluate()
    source = trainer.eval_dataset.source
    embedded = embed_source(trainer.model, trainer.processing_class, source, options=EmbedOptions(progress=False))
    expected = evaluate_retrieval(embedded).metrics
    assert expected["images"] == 6
    assert expected["captions"] == 12
    assert expected["skipped_images"] == 1
    for name, value in expected.items():
        assert metrics[f"eval_{name}"] == pytest.approx(value), name
    assert math.isfinite(metrics["eval_loss"])


TIMED = ("runtime", "per_second", "epoch")


def measured(metrics, prefix="eval_"):
    return {name.removeprefix(prefix): value for name, value in metrics.items() if not name.endswith(TIMED)}


@pytest.mark.parametrize("batch", [3, 64])
def test_predict_measures_what_evaluate_does_and_gives_the_embeddings(tmp_path, batch):
    data = write_pictures(tmp_path / "pictures", count=7, captions_each=2)
    (data / "3.png").write_bytes(b"")
    trainer = make_trainer(tmp_path / "run", data, per_device_eval_batch_size=batch)
    evaluated = trainer.evaluate()
    predicted = trainer.predict(trainer.eval_dataset)
    assert measured(predicted.metrics, "test_") == measured(evaluated)
    embedded = embed_source(
        trainer.model, trainer.processing_class, trainer.eval_dataset.source, options=EmbedOptions(progress=False)
    )
    images, texts = predicted.predictions
    np.testing.assert_allclose(images, embedded.image_embeds, atol=1e-6)
    np.testing.assert_allclose(texts, embedded.text_embeds, atol=1e-6)
    assert predicted.label_ids.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize("settings", [
    {"dataloader_num_workers": 2, "dataloader_persistent_workers": True, "dataloader_in_order": False},
    {"train_sampling_strategy": "group_by_length", "per_device_eval_batch_size": 3},
    {"train_sampling_strategy": "sequential", "dataloader_drop_last": True, "per_device_eval_batch_size": 64},
    {"accelerator_config": {"split_batches": True, "even_batches": False}, "per_device_eval_batch_size": 2},
    {"accelerator_config": {"dispatch_batches": True}, "eval_accumulation_steps": 2, "eval_use_gather_object": True},
    {"gradient_accumulation_steps": 2, "ema_decay": 0.5, "max_grad_norm": 0.1},
])  # fmt: skip
def test_no_setting_of_training_reaches_what_is_measured(settings, tmp_path):
    data = write_pictures(tmp_path / "pictures", count=7, captions_each=2)
    plain = make_trainer(tmp_path / "plain", data)
    expected = measured(plain.evaluate())
    trainer = make_trainer(tmp_path / "run", data, **settings)
    assert measured(trainer.evaluate()) == pytest.approx(expected)
    assert measured(trainer.predict(trainer.eval_dataset).metrics, "test_") == pytest.approx(expected)
    # A set of one's own is not that which was measured before, though workers stay.
    part = Subset(trainer.eval_dataset, [0, 2, 3])
    assert trainer.evaluate(part)["eval_images"] == 3
    sets = {"whole": trainer.eval_dataset, "part": part}
    assert [trainer.evaluate(sets)[f"eval_{name}_images"] for name in sets] == [7, 3]


def test_workers_that_may_hand_in_late_mix_no_rows_up(tmp_path, pictures):
    class Slow(CaptionedImages):
        def __getitem__(self, row):
            time.sleep(0.3 * (row == 0))
            return super().__getitem__(row)

    settings = {"dataloader_num_workers": 2, "dataloader_in_order": False, "per_device_eval_batch_size": 2}
    trainer = make_trainer(tmp_path / "run", pictures, **settings)
    slow = Slow(trainer.eval_dataset.source, trainer.eval_dataset.image_processor)
    expected = make_trainer(tmp_path / "one", pictures).predict(trainer.eval_dataset)
    for found, right in zip(trainer.predict(slow).predictions, expected.predictions, strict=True):
        np.testing.assert_allclose(found, right, atol=1e-6)


def test_callbacks_hear_of_every_batch_that_is_measured(tmp_path, pictures):
    heard = []

    class Listen(TrainerCallback):
        def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
            heard.append(len(eval_dataloader))

    trainer = make_trainer(tmp_path / "run", pictures, per_device_eval_batch_size=3, callbacks=[Listen()])
    trainer.evaluate()
    trainer.predict(Subset(trainer.eval_dataset, range(5)))
    assert heard == [3, 3, 3, 2, 2]


def test_the_average_is_what_every_entry_measures(tmp_path, pictures):
    """During training, by `predict`, and when training is over."""
    found = []

    class Predict(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics=None, **kwargs):
            if trainer.is_in_train:
                found.append((measured(metrics), trainer.predict(trainer.eval_dataset)))

    trainer = make_trainer(
        tmp_path / "run", pictures, num_train_epochs=2, ema_decay=0.9, eval_strategy="epoch", callbacks=[Predict()],
        learning_rate=0.05,
    )  # fmt: skip
    trainer.train()
    for evaluated, predicted in found:
        assert measured(predicted.metrics, "test_") == pytest.approx(evaluated)
    evaluated, predicted = found[-1]
    after = trainer.predict(trainer.eval_dataset)
    assert np.array_equal(after.predictions[0], predicted.predictions[0])
    assert measured(trainer.evaluate()) == pytest.approx(evaluated)
    assert not np.array_equal(found[0][1].predictions[0], after.predictions[0])


def test_torchs_wrappers_are_measured_row_by_row(tmp_path):
    """Against one folder of the same pictures: two sets with the same file names, a broken picture in each, and a row
    twice."""
    names = [write_pictures(tmp_path / "a", count=5), tmp_path / "b"]
    write_pictures(tmp_path / "b", count=3)
    for i in range(3):
        picture = Image.open(tmp_path / "b" / f"{i}.png")
        ImageOps.invert(picture).save(tmp_path / "b" / f"{i}.png")
    rows = [(name, json.loads(line)) for name in names for line in (name / "metadata.jsonl").read_text().splitlines()]
    for name in names:
        (name / "1.png").write_bytes(b"")
    chosen = [rows[i] for i in (5, 6, 7, 0, 1, 2, 3, 0)]
    (tmp_path / "whole").mkdir()
    for i, (folder, row) in enumerate(chosen):
        shutil.copy(folder / row["file_name"], tmp_path / "whole" / f"{i}.png")
    lines = [json.dumps(row | {"file_name": f"{i}.png"}) + "\n" for i, (_, row) in enumerate(chosen)]
    (tmp_path / "whole" / "metadata.jsonl").write_text("".join(lines))
    trainer = make_trainer(tmp_path / "run", tmp_path / "whole", per_device_eval_batch_size=3)
    a, b = (CaptionedImages(open_source(name), trainer.processing_class.image_processor) for name in names)
    wrapped = ConcatDataset([b, Subset(ConcatDataset([a, b]), [0, 1, 2, 3, 0])])
    expected = measured(trainer.evaluate())
    assert (expected["images"], expected["skipped_images"]) == (6, 2)
    assert measured(trainer.evaluate(wrapped)) == pytest.approx(expected)
    assert measured(trainer.predict(wrapped).metrics, "test_") == pytest.approx(expected)
    embeddings = trainer.embed(trainer.get_eval_dataloader(wrapped))
    assert embeddings.skipped == [
        (1, f"{names[1]}: row 2: 1.png", "the file is empty"),
        (4, f"{names[0]}: row 2: 1.png", "the file is empty"),
    ]
    assert embeddings.image_rows.tolist() == [0, 2, 3, 5, 6, 7]


def test_labels_of_wrapped_sets(tmp_path, caplog):
    trainer = make_trainer(tmp_path / "run", write_labelled_pictures(tmp_path / "a"), label_column="label")
    whole = trainer.eval_dataset
    expected = trainer.evaluate()
    halves = ConcatDataset(random_split(whole, [3, 5], torch.Generator().manual_seed(0)))
    for name, value in measured(trainer.evaluate(halves)).items():
        if "chance" not in name and name != "loss":
            assert value == pytest.approx(expected[f"eval_{name}"]), name
    bare = CaptionedImages(open_source(write_pictures(tmp_path / "b")), trainer.processing_class.image_processor)
    both = ConcatDataset([whole, bare])
    metrics = trainer.evaluate(both)
    assert metrics["eval_images"] == 16
    assert not any("zero_shot" in name for name in metrics)
    trainer.args.eval_tasks = ["retrieval", "zero-shot"]
    with pytest.raises(InputError, match=r".*a has labels, and .*b has none: set label_column for both, or evaluate"):
        trainer.evaluate(both)
    trainer.eval_dataset = both
    with pytest.raises(InputError, match=r".*a has labels, and .*b has none"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_other_wrappers_are_refused_where_they_are_given(tmp_path, pictures):
    trainer = make_trainer(tmp_path / "run", pictures)
    hiding = StackDataset(trainer.eval_dataset)
    for entry in (trainer.evaluate, trainer.predict):
        with pytest.raises(InputError, match="a StackDataset around CaptionedImages hides the rows"):
            entry(hiding)
    trainer.train_dataset = StackDataset(trainer.train_dataset)
    with pytest.raises(InputError, match="a StackDataset around TrainingPairs hides the rows"):
        trainer.train()
    trainer.eval_dataset = None
    with pytest.raises(InputError, match="there is no evaluation set: give eval_dataset"):
        trainer.evaluate()
    with pytest.raises(InputError, match=r"the evaluation set .* has no rows"):
        trainer.predict(Subset(make_trainer(tmp_path / "run", pictures).eval_dataset, []))


def test_retrieval_chooses_the_best_checkpoint(tmp_path, pictures):
    scores = iter([0.2, 0.9, 0.4])

    def scripted(task, *args, **kwargs):
        assert task == "retrieval"
        return Outcome({"image_retrieval_recall@4": next(scores)})

    original = evaluation.measure
    evaluation.measure = scripted
    try:
        trainer = make_trainer(
            tmp_path / "run",
            pictures,
            num_train_epochs=3,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            load_best_model_at_end=True,
            metric_for_best_model="image_retrieval_recall@4",
        )
        trainer.train()
    finally:
        evaluation.measure = original
    best = tmp_path / "run" / "checkpoint-4"
    assert trainer.state.best_model_checkpoint == str(best)
    saved = HFClipModel.from_pretrained(best).state_dict()
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, saved[name]), name


def test_classes_are_measured_beside_captions(tmp_path):
    data = write_labelled_pictures(tmp_path / "pictures")
    trainer = make_trainer(tmp_path / "run", data, label_column="label", eval_templates="{} thing")
    metrics = trainer.evaluate()
    model, processor, source = trainer.model, trainer.processing_class, trainer.eval_dataset.source
    names = [["blue"], ["red"]]  # a source sorts the names that stand in its rows
    embedded = embed_source(model, processor, source, options=EmbedOptions(progress=False))
    assert embedded.labels.tolist() == [1, 0] * 4
    classes = class_embeddings(model, processor, names, ["{c} thing"])
    expected = evaluate_zero_shot(embedded, classes, model.logit_scale.detach()).metrics
    assert expected["zero_shot_acc1_chance"] == 0.5
    for name in ("zero_shot_acc1", "zero_shot_mean_per_class_recall", "zero_shot_calibration_error"):
        assert metrics[f"eval_{name}"] == pytest.approx(expected[name]), name
    assert "eval_image_retrieval_recall@5" in metrics


def test_every_task_can_be_asked_for(tmp_path):
    data = write_labelled_pictures(tmp_path / "pictures", count=60)
    settings = {"eval_tasks": ["knn", "linear-probe"], "eval_neighbours": 3, "eval_features": "pooled"}
    metrics = make_trainer(tmp_path / "run", data, label_column="label", **settings).evaluate()
    assert {"eval_knn3_pooled_leave_one_out_acc1", "eval_linear_probe_pooled_own_split_acc1"} <= metrics.keys()
    assert not any("retrieval" in name for name in metrics)


def test_several_named_sets_and_the_best_model_by_one_of_them(tmp_path, pictures):
    """Training stops once the named set's figure has not grown for one evaluation, whatever the other's does."""
    scores = {"birds": iter([0.2, 0.9, 0.4, 0.5]), "plants": iter([0.9, 0.8, 0.7, 0.6])}
    trainer = make_trainer(
        tmp_path / "run", pictures, num_train_epochs=4, eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, metric_for_best_model="birds_image_retrieval_recall@5",
        early_stopping_patience=1,
    )  # fmt: skip
    trainer.eval_dataset = dict.fromkeys(scores, trainer.eval_dataset)
    figures, order = trainer.figures, itertools.cycle(scores)  # one set after the other

    def scripted(embeddings, outcomes):
        found = figures(embeddings, outcomes)
        assert "image_retrieval_recall@5" in found
        return found | {"image_retrieval_recall@5": next(scores[next(order)])}

    trainer.figures = scripted
    trainer.train()
    assert trainer.state.best_metric == 0.9
    assert trainer.state.best_model_checkpoint == str(tmp_path / "run" / "checkpoint-4")
    assert trainer.state.global_step == 6, "stopped after the third epoch"
    last = {name for entry in trainer.state.log_history for name in entry}
    assert {"eval_birds_image_retrieval_recall@1", "eval_plants_loss", "eval_plants_image_retrieval_map@5"} <= last


def test_a_k_that_the_evaluation_set_has_not_is_refused_before_training(tmp_path, pictures):
    trainer = make_trainer(
        tmp_path / "run", pictures, metric_for_best_model="text_retrieval_recall@9", load_best_model_at_end=True,
        save_strategy="epoch", eval_strategy="epoch",
    )  # fmt: skip
    with pytest.raises(InputError, match="recall@9 of the 8 pictures of the evaluation set is always 1"):
        trainer.train()
    with pytest.raises(InputError, match="recall@20 of the 8 pictures"):
        make_trainer(tmp_path / "run", pictures, eval_k=[1, 20]).train()


def test_the_k_of_the_best_model_is_measured(tmp_path, pictures):
    trainer = make_trainer(
        tmp_path / "run", pictures, metric_for_best_model="image_retrieval_map@3", load_best_model_at_end=True,
        save_strategy="epoch", eval_strategy="epoch",
    )  # fmt: skip
    assert {"eval_image_retrieval_map@3", "eval_text_retrieval_recall@1"} <= trainer.evaluate().keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eval_tasks": ["captioning"]}, "no task 'captioning': choose one of retrieval, zero-shot, knn"),
        ({"eval_k": [5, 0]}, "eval_k must be 1 or more, not 0"),
        ({"eval_templates": "a photo"}, "no templates 'a photo'"),
        ({"eval_neighbours": 0}, "eval_neighbours must be 1 or more, not 0"),
        ({"eval_features": "raw"}, "features are 'raw': they are one of projected, pooled"),
    ],
)
def test_evaluation_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        HFClipTrainingArguments("unused", use_cpu=True, **settings)


def test_embeddings_that_are_not_finite_name_the_tower(tmp_path, pictures):
    trainer = make_trainer(tmp_path / "run", pictures)
    nn.init.constant_(trainer.model.visual_projection.weight, math.nan)
    with pytest.raises(FloatingPointError, match="image tower"):
        trainer.evaluate()
