"""Tars as other software leaves them: joined, compressed, linked, sparse; damaged ones are refused."""

import bz2
import gzip
import lzma
import shutil
import subprocess
import tarfile

import pytest
from tar_shards import packed

from hf_clip.core.errors import InputError
from hf_clip.data.tars import is_tar, read_tar

FILES = {"a.png": b"\xff" * 700, "a.txt": b"an a", "b.png": b"", "b.txt": b"b" * 512, "c.txt": b"c"}


def read(tmp_path, content: bytes, name: str = "a.tar") -> list[tuple[int, str, bytes]]:
    (tmp_path / name).write_bytes(content)
    return list(read_tar(tmp_path / name))


ALL = [(0, name, content) for name, content in FILES.items()]
WHOLE = packed(FILES)
END = len(WHOLE.rstrip(b"\0")) // 512 * 512 + 512  # behind the last file


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_tarfile_wrote(form, tmp_path):
    assert read(tmp_path, packed(FILES, format=form)) == ALL


@pytest.mark.parametrize("padding", [512, 1024, 10240, 2 << 20])
def test_any_number_of_zeros_ends_a_tar(padding, tmp_path):
    assert read(tmp_path, WHOLE[:END] + bytes(padding)) == ALL


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("gap", [0, 512])
def test_joined_tars(compress, gap, tmp_path):
    """Once joined and then compressed, once the other way round, which gives files of several streams."""
    more = {"a.png": b"another", "d.txt": b"d"}
    expected = [*ALL, *((1, name, content) for name, content in more.items()), (2, "z", b"")]
    parts = [WHOLE + bytes(gap), packed(more), packed({"z": b""})]
    assert read(tmp_path, compress(b"".join(parts))) == expected
    assert read(tmp_path, b"".join(compress(part) for part in parts)) == expected


def test_an_empty_tar_and_one_behind_it(tmp_path):
    assert read(tmp_path, packed({})) == []
    assert read(tmp_path, packed({}) + packed(FILES)) == [(1, name, content) for name, content in FILES.items()]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_links(form, tmp_path):
    long = "folder/" * 30 + "雪" * 60
    files = {f"{long}.png": b"1", "x/a.png": b"2"}
    links = {
        "hard.png": (tarfile.LNKTYPE, f"{long}.png"),
        "x/symbolic.png": (tarfile.SYMTYPE, "a.png"),
        "y/up.png": (tarfile.SYMTYPE, "../x/a.png"),
        "twice.png": (tarfile.LNKTYPE, "hard.png"),
    }
    content = packed(files, links, format=form)
    expected = {**files, "hard.png": b"1", "x/symbolic.png": b"2", "y/up.png": b"2", "twice.png": b"1"}
    assert {name: value for _, name, value in read(tmp_path, content)} == expected
    assert {name: value for _, name, value in read(tmp_path, gzip.compress(content))} == expected
    behind = [(name, value) for archive, name, value in read(tmp_path, packed(FILES) + content) if archive == 1]
    assert dict(behind) == expected


@pytest.mark.parametrize(
    ("kind", "target"),
    [(tarfile.SYMTYPE, "/data/a.png"), (tarfile.SYMTYPE, "link.png"), (tarfile.LNKTYPE, "gone.png")],
)
def test_links_that_lead_out_of_the_tar(kind, target, tmp_path):
    with pytest.raises(InputError, match=rf"a.tar: link.png is a link to {target}, which is no file in it: pack the"):
        read(tmp_path, packed(FILES, {"link.png": (kind, target)}))


def block(name: str) -> int:
    return packed(FILES).index(name.encode())


DAMAGED = {
    "cut within a file": (WHOLE[: block("b.txt") + 600], "unexpected end of data"),
    "cut within a header": (WHOLE[: block("b.txt") + 100], "no header where one should be"),
    "cut before a header": (WHOLE[: block("b.txt")], "after b.png .*cut off: a tar ends in zeros"),
    "cut before the end": (WHOLE[:END], "after c.txt .*cut off"),
    "a header overwritten": (
        WHOLE[: block("b.txt")] + b"\xff" * 512 + WHOLE[block("b.txt") + 512 :],
        "no header where",
    ),
    "a header zeroed": (WHOLE[: block("b.txt")] + bytes(512) + WHOLE[block("b.txt") + 512 :], "goes on after its end"),
    "a header's sum": (WHOLE.replace(b"b.txt", b"x.txt"), "no header where one should be"),
    "a word behind the end": (WHOLE + b"signed", "goes on after its end with what is no tar"),
    "blocks behind the end": (WHOLE + b"\xff" * 2000, "goes on after its end with what is no tar"),
    "a damaged tar behind it": (WHOLE + WHOLE[: block("b.txt") + 100], "no header where one should be"),
    "gzip cut": (gzip.compress(WHOLE)[:-20], "damaged"),
    "gzip altered": (gzip.compress(WHOLE)[:-8] + bytes(8), "damaged"),
    "xz cut": (lzma.compress(WHOLE)[:-20], "damaged"),
    "words": (b"no tar at all" * 100, "damaged"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(600), r"is compressed by zstd: decompress it \(zstd -d\)$"),
    "zip": (b"PK\x03\x04" + bytes(600), "is a zip: unpack it"),
    "git lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
        "is a pointer of Git LFS .*: git lfs pull",
    ),
    "web page": (b"<!DOCTYPE html>", "is a web page in place of the shard"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_tars_are_refused(damage, tmp_path):
    content, message = DAMAGED[damage]
    with pytest.raises(InputError, match=rf"^shard \S+a.tar .*{message}") as raised:
        read(tmp_path, content)
    assert "\n" not in str(raised.value)


def test_a_name_like_a_magic_number(tmp_path):
    assert read(tmp_path, packed({"PK\x03\x04": b"zip?", "BZh9": b"bz2?"}))[1] == (0, "BZh9", b"bz2?")


@pytest.mark.skipif(not shutil.which("tar"), reason="the tar of the system writes sparse files")
@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_what_the_tar_of_the_system_wrote(form, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"x" + bytes(1 << 20) + b"y")
    (tmp_path / "b.bin").hardlink_to(tmp_path / "a.bin")
    subprocess.run(["tar", "-cSf", "a.tar", f"--format={form}", "a.bin", "b.bin"], cwd=tmp_path, check=True)
    content = (tmp_path / "a.bin").read_bytes()
    assert list(read_tar(tmp_path / "a.tar")) == [(0, "a.bin", content), (0, "b.bin", content)]


def test_tars_by_name(tmp_path):
    names = ["a.tar", "a.TAR.GZ", "a.tgz", "a.b.tar.xz", "a.tar.zst", "a.gz", "tar", "a.tar.png"]
    assert [is_tar(tmp_path / name) for name in names] == [True] * 5 + [False] * 3
