"""A loss of one's own, as `loss` and as `compute_loss_func`: our formulas, so given, train what ours train."""

import dataclasses
import json

import peft
import processes
import pytest
import torch
from conftest import tiny_inputs, tiny_model, write_pictures
from loss_inputs import unit_embeds
from PIL import Image
from processes import ONE_EMPTY, UNEQUAL, one_process
from ready_processes import run_command
from torch.nn.functional import cross_entropy
from toy_loss import CITATION, TOY, squared_hinge
from training_runs import cached_trainer, make_trainer
from transformers.utils import logging

from hf_clip import HFClipModel, HFClipTrainer, Loss
from hf_clip.core.errors import InputError
from hf_clip.models.infonce_hf_clip import contrastive_loss
from hf_clip.models.loss_hf_clip import score
from hf_clip.training.distributed import GatheredBatch, gather_batch, loss_of_global_batch
from hf_clip.training.own_loss import GlobalOutput, give_loss, own_loss


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


# ---- loss ---------------------------------------------------------------------------------------------------------


def ours(image_embeds, text_embeds, logit_scale, logit_bias, batch, tile_size=None):
    """InfoNCE, as a function of one's own."""
    assert image_embeds.dtype == batch.text_embeds.dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")
    return contrastive_loss(image_embeds, text_embeds, logit_scale, logit_bias, batch, tile_size)


@pytest.mark.parametrize(
    "settings",
    [
        {"loss_tile_size": 2},
        {"gradient_cache_chunk_size": 2},
        {"gradient_accumulation_steps": 2, "num_train_epochs": 4},
        {"mask_duplicates": False},
        {"bf16": True},
    ],
    ids=str,
)
def test_a_function_of_one_s_own_trains_what_the_same_loss_of_ours_trains(settings, tmp_path, data):
    settings = {"num_train_epochs": 2, "eval_strategy": "epoch"} | settings
    expected_weights, expected = trained(make_trainer(tmp_path / "ours", data, **settings))
    own, logs = trained(make_trainer(tmp_path / "own", data, trainer={"loss": ours}, **settings))
    for name, weight in expected_weights.items():
        torch.testing.assert_close(own[name], weight, rtol=1e-4, atol=1e-6, msg=name)
    for one, other in zip(logs, expected, strict=True):
        for name in {"loss", "grad_norm", "eval_loss"} & other.keys():
            assert one[name] == pytest.approx(other[name], rel=1e-4), name


def test_the_formula_of_the_toy_is_what_is_trained_and_evaluated(tmp_path, data):
    """By hand, pair by pair: the first loss that is logged, and `eval_loss`."""
    settings = {"per_device_train_batch_size": 8, "max_steps": 1, "learning_rate": 0.0}
    trainer = make_trainer(tmp_path / "run", data, trainer={"loss": TOY}, **settings)
    model = trainer.model.eval()
    embeddings = trainer.embed(trainer.get_eval_dataloader())
    scores = 2.718281828 * embeddings.image_embeds @ embeddings.text_embeds.T - 0.5
    captions, expected = "abcaabde", 0.0
    for i in range(8):
        for j in range(8):
            if i == j or captions[i] != captions[j]:
                expected += max(0.0, 1 - (1 if i == j else -1) * scores[i, j].item()) ** 2
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected / 8, rel=1e-5)
    assert (model.logit_scale.item(), model.config.loss) == (1.0, "toy_hinge")


def test_its_cap_holds(tmp_path, data):
    capped = dataclasses.replace(TOY, logit_scale_init_value=0.9, logit_scale_max=0.9)
    trainer = make_trainer(tmp_path / "run", data, trainer={"loss": capped}, max_steps=1)
    trainer.train()
    assert trainer.model.logit_scale.item() == pytest.approx(0.9)


def test_of_a_plain_function_all_else_is_the_model_s(tmp_path, data):
    model = tiny_model(loss="sigmoid", logit_bias_init_value=-3.0)
    trainer = make_trainer(tmp_path / "run", data, model=model, trainer={"loss": squared_hinge})
    config = trainer.model.config
    assert (config.loss, config.probabilities, config.logit_scale_max) == ("squared_hinge", "sigmoid", None)
    assert trainer.model.logit_bias.item() == -3.0


def test_one_of_ours_is_given_by_name(tmp_path, data):
    trainer = make_trainer(tmp_path / "run", data, trainer={"loss": "sigmoid"})
    assert (trainer.model.config.loss, trainer.model.logit_bias.item()) == ("sigmoid", -10)


def test_what_a_loss_leaves_unused_has_a_gradient_of_zero(tmp_path, data):
    def pull(image_embeds, text_embeds, logit_scale, logit_bias, batch):
        return -(image_embeds * text_embeds).sum()

    for chunk in (None, 2):
        settings = {"gradient_cache_chunk_size": chunk, "trainer": {"loss": pull}}
        trainer = make_trainer(tmp_path / f"{chunk}", data, model=tiny_model(loss="sigmoid"), **settings)
        before = trainer.model.logit_scale.item()
        trainer.train()
        assert (trainer.model.logit_scale.item(), trainer.model.logit_bias.item()) == (before, -10)


@pytest.mark.parametrize(
    ("loss", "settings", "message"),
    [
        ("sgmoid", {}, "unknown loss 'sgmoid': choose one of .*infonce"),
        (3, {}, "loss is 3: give a name"),
        (torch.nn.CrossEntropyLoss(), {}, r"loss is CrossEntropyLoss\(\): give a name"),
        (lambda a, b, c, d, batch: a.sum(), {}, "loss is a function without a name"),
        (infonce, {}, r"loss infonce: its function cannot be called with \(image_embeds"),
        (dataclasses.replace(TOY, citations=("sigllip",)), {}, "loss toy_hinge: unknown citation 'sigllip'"),
        (TOY, {"loss_tile_size": 4}, "loss_tile_size is for losses that have tiles, and toy_hinge has none"),
        (TOY, {"trainer": {"compute_loss_func": infonce}}, "loss and compute_loss_func both say"),
        (None, {"loss_tile_size": 4, "trainer": {"compute_loss_func": infonce}}, "and compute_loss_func has none"),
    ],
)
def test_what_is_no_loss_or_would_have_no_effect_is_refused(loss, settings, message, tmp_path, data):
    model = tiny_model()
    given = settings | {"model": model, "trainer": {"loss": loss} | settings.get("trainer", {})}
    with pytest.raises(InputError, match=message):
        make_trainer(tmp_path / "run", data, **given)
    assert (model.config.loss, model.logit_bias, model.own_loss) == ("infonce", None, None)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda embeds: embeds.sum(1), r"returns a tensor of \(5,\): it must be a tensor of one number"),
        (lambda embeds: 1.0, "returns a float"),
        (lambda embeds: embeds.detach().sum(), "returns a loss without gradient"),
    ],
)
def test_what_a_function_may_not_return(returned, message, tmp_path, data):
    def mine(image_embeds, text_embeds, logit_scale, logit_bias, batch):
        return returned(image_embeds)

    with pytest.raises(InputError, match=f"loss mine {message}"):
        make_trainer(tmp_path / "run", data, trainer={"loss": mine}).train()


def test_a_function_is_handed_fp32_whatever_the_precision():
    model = tiny_model()
    model.use_loss(Loss("ours", ours))
    images, texts = (embeds.bfloat16() for embeds in unit_embeds())
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        trained = give_loss(model, model.get_loss())
        loss = trained(images, texts, torch.zeros(1), None, GatheredBatch(images, texts), None)
    assert loss.dtype == torch.float32


def test_a_process_without_pairs_adds_a_loss_of_zero():
    """Whatever the function would say of none: the others' pairs are compared with none of this process's."""

    def mean(image_embeds, text_embeds, logit_scale, logit_bias, batch):
        return (image_embeds * batch.text_embeds.mean(0)).sum(1).mean() * len(image_embeds)  # NaN of none

    model = tiny_model().eval()
    model.use_loss(Loss("mean", mean))
    world, nothing = (model(**tiny_inputs(pairs)) for pairs in (4, 1))
    for name in ("image_embeds", "text_embeds"):
        nothing[name] = nothing[name][:0]
    batch = GatheredBatch(world.image_embeds, world.text_embeds)
    loss = loss_of_global_batch(nothing, give_loss(model, model.get_loss()), batch)
    loss.backward()
    assert loss == 0
    assert model.text_projection.weight.grad.abs().sum() == 0


def a_mean(image_embeds, text_embeds, logit_scale, logit_bias, batch):
    return contrastive_loss(image_embeds, text_embeds, logit_scale, None, batch) / len(image_embeds)


def of_the_slice_alone(image_embeds, text_embeds, logit_scale, logit_bias, batch):
    return contrastive_loss(image_embeds, text_embeds, logit_scale)


def infinite_on_duplicates(image_embeds, text_embeds, logit_scale, logit_bias, batch):
    """Label smoothing gives what is masked a share."""
    rows = batch.own_rows(image_embeds)
    logits = score(image_embeds, batch.text_embeds, logit_scale)
    logits = logits.masked_fill(batch.no_negatives(rows), float("-inf"))
    return cross_entropy(logits, rows, reduction="sum", label_smoothing=0.1)


def test_one_that_is_no_number_on_duplicates_is_refused_before_training(tmp_path, data):
    with pytest.raises(InputError, match="infinite_on_duplicates is inf of five pairs, two of which have the same"):
        make_trainer(tmp_path / "run", data, trainer={"loss": infinite_on_duplicates})


@pytest.mark.parametrize("function", [a_mean, of_the_slice_alone])
def test_what_does_not_add_up_is_refused_before_training(function, tmp_path, data):
    with pytest.raises(InputError, match=f"loss {function.__name__} does not add up: of five pairs it gives"):
        make_trainer(tmp_path / "run", data, trainer={"loss": function})


class WithDeepSpeed(HFClipTrainer):
    def create_accelerator_and_postprocess(self):
        super().create_accelerator_and_postprocess()
        self.is_deepspeed_enabled = True


def test_deepspeed_is_refused(tmp_path, data):
    parts = make_trainer(tmp_path / "run", data)
    given = {"train_dataset": parts.train_dataset, "processing_class": parts.processing_class}
    told = tiny_model()
    told.use_loss(TOY)
    for model, loss in ((tiny_model(), TOY), (tiny_model(), "sigmoid"), (told, None)):
        with pytest.raises(InputError, match="or one of your own, is for runs without DeepSpeed"):
            WithDeepSpeed(model, parts.args, loss=loss, **given)


def test_compute_loss_func_in_place_of_a_loss_of_one_s_own_is_refused(tmp_path, data):
    model = tiny_model()
    model.use_loss(TOY)
    with pytest.raises(InputError, match="compute_loss_func would train a model that use_loss made one of"):
        make_trainer(tmp_path / "run", data, model=model, trainer={"compute_loss_func": infonce})


def test_an_adapter_cannot_say_its_loss(tmp_path, data):
    base, config = tiny_model(), peft.LoraConfig(r=2, target_modules=r"text_model\..*\.query")
    with pytest.raises(InputError, match="loss toy_hinge: an adapter is saved without the configuration"):
        make_trainer(tmp_path / "run", data, model=peft.get_peft_model(base, config), trainer={"loss": TOY})
    base = tiny_model()
    base.use_loss(TOY)
    adapted = peft.get_peft_model(base, config)
    make_trainer(tmp_path / "run", data, model=adapted, max_steps=1, trainer={"loss": TOY}).train()


def test_a_temperature_that_was_trained_stays_and_is_spoken_of(tmp_path, data, caplog, monkeypatch):
    monkeypatch.setattr(logging.get_logger("transformers"), "propagate", True)
    monkeypatch.setattr(logging.get_logger("hf_clip"), "propagate", True)
    model = tiny_model()
    with torch.no_grad():
        model.logit_scale.fill_(3.0)
    make_trainer(tmp_path / "run", data, model=model, trainer={"loss": TOY})
    assert "a new model of the loss toy_hinge would begin at logit_scale 1" in caplog.text
    caplog.clear()
    make_trainer(tmp_path / "run", data, trainer={"loss": TOY})
    assert "would begin" not in caplog.text
    model = tiny_model(loss="sigmoid")
    with torch.no_grad():
        model.logit_bias.fill_(-4.0)
    make_trainer(tmp_path / "run", data, model=model, trainer={"loss": TOY})
    assert "would begin at logit_bias -0.5" in caplog.text
    assert (model.logit_scale.item(), model.logit_bias.item()) == (1.0, -4.0)


def test_resumed_with_it_a_run_ends_with_its_weights_and_without_it_is_refused(tmp_path, data):
    settings = {"num_train_epochs": 2, "save_strategy": "epoch", "trainer": {"loss": TOY}}
    whole = make_trainer(tmp_path / "run", data, **settings)
    whole.train()
    checkpoint = str(tmp_path / "run" / "checkpoint-2")
    again = make_trainer(tmp_path / "again", data, **settings)
    again.train(resume_from_checkpoint=checkpoint)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], weight), name
    with pytest.raises(InputError, match="-2 was trained with the loss toy_hinge, and this run has infonce"):
        make_trainer(tmp_path / "other", data).train(resume_from_checkpoint=checkpoint)
    capless = {"loss": dataclasses.replace(TOY, logit_scale_max=None)}
    with pytest.raises(InputError, match=r"loss toy_hinge with logit_scale_max=1\.01, and this run has None: give"):
        make_trainer(tmp_path / "other", data, trainer=capless).train(resume_from_checkpoint=checkpoint)
    opened = HFClipModel.from_pretrained(checkpoint)
    with pytest.raises(InputError, match="the loss 'toy_hinge', which is not here: give it with"):
        make_trainer(tmp_path / "opened", data, model=opened)


def test_each_model_that_a_search_makes_has_it(tmp_path, data):
    trainer = make_trainer(
        tmp_path / "run", data, max_steps=1, trainer={"loss": TOY, "model_init": lambda: tiny_model()}
    )
    trainer.train()
    assert (trainer.model.config.loss, trainer.model.own_loss) == ("toy_hinge", TOY)


# ---- without the loss ---------------------------------------------------------------------------------------------


def test_what_was_trained_with_it_is_used_by_those_who_do_not_have_it(tmp_path, data):
    trainer = make_trainer(tmp_path / "run", data, max_steps=1, trainer={"loss": TOY})
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    model = trainer.model.eval()
    image = str(data / "0.png")
    done = run_command("classify", image, "--model", str(tmp_path / "run"), "--labels", "red, blue", "--json")
    answer = json.loads(done.stdout)
    shown = trainer.processing_class(images=Image.open(image), text=["red", "blue"], return_tensors="pt")
    scores = model(**shown).logits_per_image.sigmoid()[0].tolist()
    assert list(answer["results"][0]["scores"].values()) == pytest.approx(scores, rel=1e-4)
    assert answer["independent"]

    card = (tmp_path / "run" / "README.md").read_text()
    assert "cosine / 0.3679 ── plus bias: squared hinge of every pair" in card
    assert "The model was trained with a toy of a loss, of every pair: the sigmoid of a logit says" in card
    assert CITATION in card
    assert "infonce" not in card.casefold()
    assert "sigmoid()[0]" in card


def test_a_card_names_no_loss_of_ours_where_a_function_was_trained_on(tmp_path, data):
    trainer = make_trainer(tmp_path / "run", data, max_steps=1, trainer={"compute_loss_func": infonce})
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    card = (tmp_path / "run" / "README.md").read_text()
    assert "── a loss of the run's own" in card
    assert "The model was trained with a loss of its run's own." in card
    assert "infonce" not in card.casefold()


# ---- in several processes -----------------------------------------------------------------------------------------


def test_the_trainer_on_two_processes_trains_a_loss_from_outside_as_one_does(tmp_path):
    data = write_pictures(tmp_path / "pictures", count=7)
    for count in (2, 1):
        processes.run(processes.train_and_evaluate, count, str(tmp_path), str(data), 3, True)
    two, one = (torch.load(tmp_path / f"trained-{count}.pt") for count in (2, 1))
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weight, rtol=1e-7, atol=1e-10, msg=name)
    assert two["metrics"]["eval_loss"] == pytest.approx(one["metrics"]["eval_loss"], rel=1e-6)


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
OWN_STEPS += [
    processes.Step(wrapping, sizes, TOY.name, chunk_size=chunk, own="toy")
    for wrapping in ("ddp", "fsdp2")
    for sizes, chunk in ((UNEQUAL[2], None), (ONE_EMPTY[2], 3))
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
    expected_loss, expected_grads = one_process(OWN_STEPS[number].loss)
    for rank, steps in enumerate(results):
        torch.testing.assert_close(steps[number]["loss"], expected_loss)
        for name, grad in expected_grads.items():
            torch.testing.assert_close(
                steps[number]["grads"][name], grad, rtol=1e-7, atol=1e-10, msg=f"rank {rank}: {name}"
            )
