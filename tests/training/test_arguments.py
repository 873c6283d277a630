"""Defaults and what is refused."""

import pytest

from hf_clip import HFClipTrainingArguments


def test_warm_up_is_a_ratio(tmp_path):
    args = HFClipTrainingArguments(output_dir=str(tmp_path), warmup_steps=0.2)
    assert args.get_warmup_steps(50) == 10


def test_columns_must_stay(tmp_path):
    with pytest.raises(ValueError, match="remove_unused_columns must stay false"):
        HFClipTrainingArguments(output_dir=str(tmp_path), remove_unused_columns=True)
