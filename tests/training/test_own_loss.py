"""`compute_loss_func`: our own formula given as one's own loss trains what ours trains, over processes too."""

import processes
import pytest
import torch
from conftest import tiny_inputs, tiny_model, write_pictures
from processes import ONE_EMPTY, UNEQUAL, one_process
from training_runs import cached_trainer, make_trainer

from hf_clip.core.errors import InputError
from hf_clip.models.infonce_hf_clip import contrastive_loss
from hf_clip.training.distributed import gather_batch
from hf_clip.training.own_loss import GlobalOutput, own_loss


def infonce(outputs, labels=None, num_items_in_batch=None):
    embeds = (outputs.image_embeds, outputs.text_embeds, outputs.logit_scale)
    return contrastive_loss(*embeds, batch=outputs) / num_items_in_batch


@pytest.fixture
def data(tmp_path):
    """8 pictures, some of which share a caption."""
    folder = write_pictures(tmp_path / "pictures")
    (folder / "metadata.jsonl").write_text(
        "".join(f'{{"file_name": "{i}.png", "caption": "{caption}"}}\n' for i, caption in enumerate("abcaabde"))
    )
    return folder


def trained(trainer):
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry]
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}, logs


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gradient_cache_chunk_size": 2},
        {"gradient_accumulation_steps": 2, "num_train_epochs": 4},
        {"mask_duplicates": False},
        {"bf16": True},
    ],
    ids=str,
)
def test_our_own_formula_as_a_loss_of_one_s_own_trains_the_same_weights(settings, tmp_path, data):
    settings = {"num_train_epochs": 2, "eval_strategy": "epoch"} | settings
    ours, expected = trained(make_trainer(tmp_path / "ours", data, **settings))
    own, logs = trained(make_trainer(tmp_path / "own", data, trainer={"compute_loss_func": infonce}, **settings))
    for name, weight in ours.items():
        torch.testing.assert_close(own[name], weight, rtol=1e-4, atol=1e-6, msg=name)
    for one, other in zip(logs, expected, strict=True):
        for name in {"loss", "grad_norm", "eval_loss"} & other.keys():
            assert one[name] == pytest.approx(other[name], rel=1e-4), name


def test_with_cached_features_of_frozen_towers(tmp_path, data):
    ours, _ = trained(cached_trainer(tmp_path, data, "ours")[0])
    own, _ = trained(cached_trainer(tmp_path, data, "own", trainer={"compute_loss_func": infonce})[0])
    for name, weight in ours.items():
        torch.testing.assert_close(own[name], weight, rtol=1e-4, atol=1e-6, msg=name)


def test_evaluation_s_loss_is_that_of_the_function(tmp_path, data):
    def loss(outputs, labels=None, num_items_in_batch=None):
        assert (labels, num_items_in_batch) == (None, len(outputs.image_embeds))
        return outputs.logit_scale.sum() * num_items_in_batch

    trainer = make_trainer(tmp_path / "run", data, per_device_train_batch_size=8, trainer={"compute_loss_func": loss})
    expected = 8 * trainer.model.logit_scale.item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected)


def test_what_the_function_leaves_unused_does_not_move(tmp_path, data):
    """A bias and a temperature that the loss does not look at have a gradient of zero, with chunks too."""
    for chunk in (None, 2):
        model = tiny_model(loss="sigmoid")
        before = {name: value.clone() for name, value in model.state_dict().items() if name.startswith("logit_")}
        trainer = make_trainer(
            tmp_path / f"{chunk}", data, model=model, gradient_cache_chunk_size=chunk,
            trainer={"compute_loss_func": lambda o, *args, **kw: -(o.image_embeds * o.text_embeds).sum(1).mean()},
        )  # fmt: skip
        trainer.train()
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if name in before)
        assert trainer.state.log_history[0]["loss"] < 1


def test_logits_are_the_model_s(tmp_path):
    model = tiny_model(loss="sigmoid").eval()
    output = model(**tiny_inputs())
    world = gather_batch(output.image_embeds, output.text_embeds)
    outputs = GlobalOutput(**vars(world), logit_scale=output.logit_scale, logit_bias=output.logit_bias)
    torch.testing.assert_close(outputs.logits_per_image, output.logits_per_image)
    torch.testing.assert_close(outputs.logits_per_text, output.logits_per_text)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda o: o.image_embeds, r"returns a tensor of \(4, 16\): it must be a tensor of one number"),
        (lambda o: 1.0, "returns a float: it must be a tensor of one number"),
        (lambda o: {"loss": o.logit_scale}, "returns a dict: it must be a tensor of one number"),
        (lambda o: o.logit_scale.detach(), "returns a loss without gradient"),
    ],
)
def test_what_is_no_loss_is_refused(returned, message, tmp_path, data):
    trainer = make_trainer(tmp_path / "run", data, trainer={"compute_loss_func": lambda o, *a, **k: returned(o)})
    with pytest.raises(InputError, match=f"compute_loss_func {message}"):
        trainer.train()


def test_a_batch_without_pairs_is_a_loss_of_zero():
    model = tiny_model()
    nothing = {name: value[:0] for name, value in tiny_inputs().items()}
    output = model(**nothing, return_logits=False)
    loss = own_loss(infonce, output, gather_batch(output.image_embeds, output.text_embeds))
    loss.backward()
    assert loss == 0


OWN_STEPS = [
    processes.Step(wrapping, sizes, chunk_size=chunk, own=own)
    for wrapping, sizes, chunk, own in [
        ("ddp", UNEQUAL[2], None, "whole"),
        ("ddp", ONE_EMPTY[2], None, "whole"),
        ("ddp", UNEQUAL[2], 3, "whole"),
        ("ddp", UNEQUAL[2], None, "share"),
        ("ddp", ONE_EMPTY[2], 3, "share"),
        ("fsdp2", UNEQUAL[2], None, "whole"),
    ]
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    processes.run(processes.take_steps, 2, str(folder), OWN_STEPS)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize(
    "number", range(len(OWN_STEPS)), ids=lambda number: f"{OWN_STEPS[number]}-{OWN_STEPS[number].own}"
)
def test_two_processes_compute_what_one_would(number, results):
    """Every process all pairs, or each its own rows from `offset` on: value and every gradient, in float64."""
    expected_loss, expected_grads = one_process()
    for rank, steps in enumerate(results):
        torch.testing.assert_close(steps[number]["loss"], expected_loss)
        for name, grad in expected_grads.items():
            torch.testing.assert_close(
                steps[number]["grads"][name], grad, rtol=1e-7, atol=1e-10, msg=f"rank {rank}: {name}"
            )
