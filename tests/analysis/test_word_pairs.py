"""Pairs of opposites, as a caller gives them."""

from hf_clip.analysis.word_pairs import read_pairs


def test_pairs_texts_and_files_each_once(tmp_path):
    file = tmp_path / "pairs.txt"
    file.write_text("dark / bright\n\nold / new\n")
    expected = [("dark", "bright"), ("old", "new")]
    assert read_pairs(file) == read_pairs(str(file)) == expected
    assert read_pairs([file, "old/new", ["dark", "bright"]]) == expected
    assert read_pairs("a / b") == [("a", "b")]


def test_a_side_of_a_pair_may_hold_a_slash():
    assert read_pairs([("on / off", "a cat")]) == [("on / off", "a cat")]
