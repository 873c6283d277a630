"""Each pooling against what the tower itself gives."""

import pytest
import torch
from conftest import tiny_inputs, tiny_model
from torch import nn


@pytest.mark.parametrize("pooling", ["cls", "mean", "last", "pooler"])
def test_poolings_of_text(pooling):
    model, inputs = tiny_model(text_pooling=pooling).eval(), tiny_inputs()
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    output = model.text_model(input_ids=ids, attention_mask=mask)
    lengths = mask.sum(1).tolist()
    hidden = output.last_hidden_state
    expected = {
        "cls": lambda: hidden[:, 0],
        "mean": lambda: torch.stack([row[:n].mean(0) for row, n in zip(hidden, lengths, strict=True)]),
        "last": lambda: torch.stack([row[n - 1] for row, n in zip(hidden, lengths, strict=True)]),
        "pooler": lambda: output.pooler_output,
    }[pooling]()
    features = model.get_text_features(ids, mask).pooler_output
    torch.testing.assert_close(features, expected @ model.text_projection.weight.T)
    assert (model.text_model.pooler is None) == (pooling != "pooler")  # an unused pooler would stall DDP


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_padding_changes_no_embedding(pooling):
    model, inputs = tiny_model(text_pooling=pooling).eval(), tiny_inputs(pairs=1)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    alone = model(input_ids=ids, attention_mask=mask).text_embeds
    padded = model(
        input_ids=nn.functional.pad(ids, (0, 5)), attention_mask=nn.functional.pad(mask, (0, 5))
    ).text_embeds
    torch.testing.assert_close(padded, alone)
