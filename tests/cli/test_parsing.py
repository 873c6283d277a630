"""Parsers complain in one sentence."""

import argparse

import pytest

from hf_clip.cli.parsing import Parser, positive_int
from hf_clip.core.errors import InputError


def test_a_parser_raises_instead_of_leaving():
    parser = Parser("hf-clip test")
    parser.add_argument("--size", required=True, choices=["small", "large"])
    with pytest.raises(InputError, match=r"required: --size \(see --help\)"):
        parser.parse_args([])
    with pytest.raises(InputError, match=r"invalid choice: 'huge'.*small.*large"):
        parser.parse_args(["--size", "huge"])
    with pytest.raises(InputError, match="unknown setting --colour"):
        parser.parse_args(["--size", "small", "--colour"])


def test_counts_begin_at_one():
    assert positive_int("12") == 12
    for text in ("0", "-1", "1.5", "", "many", "²"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number of 1 or more"):
            positive_int(text)
