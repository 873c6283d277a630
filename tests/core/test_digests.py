"""Digests: those of the standard library's BLAKE2b, whatever the parts that the bytes come in."""

import hashlib

import numpy as np
import torch

from hf_clip.core.digests import digest_of, tensors_digest


def test_parts_are_digested_as_if_they_were_one():
    expected = hashlib.blake2b(b"ab" + np.arange(3).tobytes(), digest_size=10).digest()
    assert digest_of([b"a", memoryview(b"b"), np.arange(3)], size=10) == expected


def test_weights_buffers_and_settings_count():
    module = torch.nn.BatchNorm1d(2)
    before = tensors_digest(module, ("mean",))
    assert before == tensors_digest(torch.nn.BatchNorm1d(2), ("mean",)) != tensors_digest(module, ("cls",))
    module.running_mean[1] += 1
    assert tensors_digest(module, ("mean",)) != before
