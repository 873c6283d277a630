"""Faults of a CSV file are named with the line that has them."""

import pytest

from hf_clip.core.errors import InputError
from hf_clip.data.sources import open_source

HEAD = b"image,caption\n"
FAULTY = {
    "a comma in a text": (HEAD + b"a,x\nb,red, round\nc,y\n", "line 3 has 3 fields where the first line names 2"),
    "commas in all texts": (HEAD + b"a,red, round\nb,red, round\n", "line 2 has 3 fields"),
    "after a text of several lines": (HEAD + b'a,"x\ny\nz"\nb,red, round\n', "line 5 has 3 fields"),
    "after blank lines": (HEAD + b"\n  \r\na,x\n\nb,red, round\n", "line 6 has 3 fields"),
    "a short row": (HEAD + b"a,x\nb\n", "line 3 has 1 field where the first line names 2"),
    "semicolons": (b"image;caption\na;x, y\n", "semicolons separate its columns: save it with commas"),
    "tabs": (b"image\tcaption\na\tx\n", "tabs separate its columns"),
    "latin-1": (HEAD + b"a,x\nb,caf\xe9\n", r"line 3 is not UTF-8 \(byte 0xe9\): save the file as UTF-8"),
    "utf-16": ("image,caption\na,x\n".encode("utf-16"), "is UTF-16: save it as UTF-8"),
    "an open quote": (HEAD + b'a,x\nb,"red\nc,y\nd,z\n', r'line 3 opens a quote \("\) that nothing closes'),
    "an open quote in the last line": (HEAD + b'a,x\nb,"red', "line 3 opens a quote"),
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("fault", FAULTY)
def test_the_line_of_a_fault_is_named(fault, streaming, tmp_path, capfd):
    content, message = FAULTY[fault]
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.csv:? {message}") as raised:
        open_source(tmp_path / "a.csv", streaming=streaming)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + HEAD + b"a,x\nb,y\n",
        HEAD + b'a,"x, y"\r\n"b","y ""z"""',
        HEAD + b'a,5" tall\nb,an "x"\n',
        HEAD + b'\na,"x\ny"\n  \nb,' + b"y" * 200_000,
    ],
)
def test_what_is_in_order_passes(content, tmp_path):
    (tmp_path / "a.csv").write_bytes(content)
    source = open_source(tmp_path / "a.csv")
    assert [row["image"] for row in source.rows] == ["a", "b"]
