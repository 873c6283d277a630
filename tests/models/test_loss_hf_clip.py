"""What a loss is: what it refuses, what it has by default, and the example that its documentation shows."""

import inspect
import math
import re
import textwrap

import pytest
import torch
from loss_inputs import unit_embeds

from hf_clip import Loss
from hf_clip.models.loss_hf_clip import GlobalBatch


def sum_of_cosines(image_embeds, text_embeds, logit_scale, logit_bias, batch):
    return -(image_embeds * text_embeds).sum()


def test_by_default_it_begins_as_clip_does_and_says_its_name():
    loss = Loss("cosines", sum_of_cosines)
    assert loss.settings() == {
        "loss": "cosines",
        "probabilities": "softmax",
        "logit_scale_init_value": pytest.approx(math.log(1 / 0.07)),
        "logit_scale_max": pytest.approx(math.log(100)),
        "logit_bias_init_value": None,
    }
    assert (loss.label, loss.sentence) == ("cosines", "The model was trained with the loss cosines")
    cited = [Loss("cosines", sum_of_cosines, citations=given) for given in ("@misc{a}", ["@misc{a}"])]
    assert [each.citations for each in cited] == [("@misc{a}",)] * 2
    assert len(set(cited)) == 1  # hashable, as what is frozen should be
    assert loss(*unit_embeds(), torch.zeros(1)) == -sum((a * b).sum() for a, b in zip(*unit_embeds(), strict=True))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "my loss"}, "loss 'my loss': a name is of letters, digits and underscores"),
        ({"probabilities": "softmin"}, "unknown probabilities 'softmin': choose one of softmax, sigmoid"),
        ({"logit_scale_init_value": math.inf}, "logit_scale_init_value is inf: it must be a finite number"),
        ({"logit_bias_init_value": math.nan}, "logit_bias_init_value is nan"),
        ({"logit_scale_init_value": "1"}, "logit_scale_init_value is '1': it must be a finite number"),
        ({"logit_scale_init_value": None}, "logit_scale_init_value is None: it must be a finite number"),
        ({"logit_scale_init_value": 9, "logit_scale_max": 1.0}, "init_value 9 is above logit_scale_max 1, where"),
        (
            {"function": lambda outputs, labels, num_items_in_batch: 0},
            r"cannot be called with \(image_",
        ),
        ({"function": 1}, "cannot be called with"),
    ],
)
def test_what_is_none_is_refused_where_it_is_made(given, message):
    with pytest.raises(ValueError, match=message):
        Loss(**({"name": "cosines", "function": sum_of_cosines} | given))


@pytest.mark.parametrize(("more", "takes"), [("", False), (", tile_size=None", True), (", *, tile_size=None", True)])
def test_only_a_function_that_has_tiles_is_told_their_size(more, takes):
    namespace: dict = {"told": []}
    exec(f"def function(a, b, c, d, batch{more}): told.append({'tile_size' if takes else None}); return a", namespace)
    loss = Loss("tiles", namespace["function"])
    loss(*unit_embeds(), torch.zeros(1), tile_size=3 if takes else None)
    assert (loss.takes_tile_size, namespace["told"]) == (takes, [3 if takes else None])


def test_what_is_no_negative_by_hand():
    embeds = unit_embeds(pairs=4)
    batch = GlobalBatch(*embeds, torch.tensor([1, 2, 1, 4]), torch.tensor([5, 6, 7, 6]), offset=2)
    rows = batch.own_rows(embeds[0][2:])
    assert rows.tolist() == [2, 3]
    # Row 2 has the image of pair 0, row 3 the caption of pair 1.
    assert batch.no_negatives(rows).tolist() == [[True, False, False, False], [False, True, False, False]]
    assert GlobalBatch(*embeds).no_negatives(rows) is None


def test_the_example_of_the_documentation_is_a_loss():
    """Hinge of images against captions: by hand, and its slices add up."""
    code = re.search(r"```python\n(.*?)\n\n +trainer", inspect.getdoc(Loss), flags=re.DOTALL)[1]
    namespace: dict = {}
    exec(textwrap.dedent(code), namespace)
    loss = Loss("hinge", namespace["hinge"])
    images, texts = (embeds.double() for embeds in unit_embeds(pairs=5))
    ids = torch.tensor([1, 2, 3, 1, 5])
    expected = sum(
        max(0.0, 0.2 + float(images[i] @ texts[j] - images[i] @ texts[i]))
        for i in range(5)
        for j in range(5)
        if i != j and ids[i] != ids[j]
    )
    parts = [
        loss(images[rows], texts[rows], torch.zeros(1), None, GlobalBatch(images, texts, None, ids, rows.start))
        for rows in (slice(0, 2), slice(2, 5), slice(5, 5))
    ]
    assert sum(parts).item() == pytest.approx(expected)
