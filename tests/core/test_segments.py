"""Segments on disk: whole or not there, mapped and not read, and none of something else taken for one's own."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hf_clip.core.errors import InputError
from hf_clip.core.segments import Segment, SegmentStore, embed_by_segment, map_array, split_rows, write_segment

VECTORS = np.arange(12, dtype=np.float16).reshape(4, 3)


@pytest.fixture
def folder(tmp_path):
    """Four rows with six words of theirs."""
    words = np.arange(6, dtype=np.float32)[:, None]
    table = pa.table({"id": [3, 1, 4, 9], "name": ["c", "a", "d", "i"]})
    write_segment(tmp_path / "segment", table, {"vectors": VECTORS, "words": words}, "one", {"note": "é"})
    return tmp_path / "segment"


def test_what_is_written_is_read(folder):
    segment = Segment(folder, "one").check()
    assert (len(segment), segment.origin, segment.facts) == (4, "one", {"note": "é"})
    assert segment.rows().to_pydict() == {"id": [3, 1, 4, 9], "name": ["c", "a", "d", "i"]}
    assert segment.rows(["name"]).column_names == ["name"]
    assert (segment.vectors.dtype, segment.vectors.tolist()) == ("f2", VECTORS.tolist())
    assert (segment.arrays["words"].dtype, segment.arrays["words"].shape) == ("f4", (6, 1))
    assert np.array_equal(np.load(folder / "vectors.npy"), VECTORS)
    assert sorted(os.listdir(folder)) == ["rows.parquet", "vectors.npy", "words.npy"]
    assert os.listdir(folder.parent) == ["segment"]
    with pytest.raises(ValueError, match="read-only"):
        segment.vectors[0] = 0


def test_no_rows_and_other_orders_in_memory(tmp_path):
    nothing = np.zeros((0, 3), dtype=np.float16)
    write_segment(tmp_path / "none", pa.table({"id": pa.array([], pa.int64())}), {"vectors": nothing}, "")
    assert (len(Segment(tmp_path / "none").check()), Segment(tmp_path / "none").vectors.shape) == (0, (0, 3))
    write_segment(tmp_path / "turned", pa.table({"id": [1, 2, 3]}), {"vectors": VECTORS.T}, "")
    assert Segment(tmp_path / "turned").vectors.tolist() == VECTORS.T.tolist()


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_vectors_are_mapped_and_no_file_stays_open(tmp_path):
    size = 64 * 2**20
    write_segment(tmp_path / "large", pa.table({"id": range(size // 1024)}),
                  {"vectors": np.ones((size // 1024, 512), dtype=np.float16)}, "")  # fmt: skip
    before, opened = resident(), len(os.listdir("/proc/self/fd"))
    segments = [Segment(tmp_path / "large") for _ in range(20)]
    assert resident() - before < size // 8
    assert len(os.listdir("/proc/self/fd")) == opened
    assert segments[7].vectors[-1].sum() == 512
    assert resident() - before < size // 8


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize(("name", "damage", "message"), [
    ("rows.parquet", Path.unlink, r"\(.*(No such file|Failed to open).*\)"),
    ("rows.parquet", cut, r"\(.*\)"),
    ("vectors.npy", Path.unlink, r"\(.*No such file.*\)"),
    ("vectors.npy", cut, r"\(vectors.npy has 151 bytes, not 152\)"),
    ("words.npy", lambda file: file.write_bytes(b"no array"), r"\(.*magic string.*\)"),
    ("vectors.npy", lambda file: np.save(file, VECTORS[:3]), r"\(4 rows, but 3 vectors\)"),
    ("rows.parquet", lambda file: pa.parquet.write_table(pa.table({"id": [1] * 4}), file), ""),
])  # fmt: skip
def test_a_damaged_one_is_not_opened(name, damage, message, folder):
    damage(folder / name)
    with pytest.raises(InputError, match=rf"segment is damaged {message}.*: embed again"):
        Segment(folder)


@pytest.mark.parametrize("name", ["vectors.npy", "words.npy", "rows.parquet"])
def test_what_the_disk_has_spoilt_is_found(name, folder):
    content = bytearray((folder / name).read_bytes())
    content[-1 if name != "rows.parquet" else content.index(b"\x09" + b"\0" * 7)] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match="segment is damaged"):
        Segment(folder).check()


def test_another_is_refused(folder):
    with pytest.raises(InputError, match="segment is a part of something else: remove it, and embed again"):
        Segment(folder, "two")


@pytest.fixture
def store(tmp_path):
    """Seven rows, three a segment."""
    store = SegmentStore(tmp_path / "store", 7, 3, "one")
    for rows in store.ranges:
        store.write(rows, pa.table({"id": list(rows)}), {"vectors": np.zeros((len(rows), 2))}, first=rows.start)
    return store


def test_segments_in_order_and_shares_of_what_is_missing(store):
    assert [segment.rows()["id"].to_pylist() for segment in store] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [segment.facts for segment in store] == [{"first": 0}, {"first": 3}, {"first": 6}]
    assert store.missing() == []
    (store.path(range(6, 7)) / "vectors.npy").unlink()
    os.rename(store.path(range(3)), store.path(range(3, 6)).with_name("away"))
    assert [store.missing(share, 2) for share in range(2)] == [[range(3), range(6, 7)], []]
    assert SegmentStore(store.folder, 7, 3, "two").missing() == store.ranges, "another model's"


def test_one_of_other_rows_is_not_taken_for_these(store):
    first, second, _ = map(store.path, store.ranges)
    os.rename(first, first.with_name("away"))
    os.rename(second, first)
    with pytest.raises(InputError, match="rows-000000000-000000003 is a part of something else"):
        next(iter(store))
    assert store.missing() == [range(3), range(3, 6)]


def test_a_damaged_one_is_written_again_and_a_break_leaves_none(store, monkeypatch):
    rows = store.ranges[0]

    def break_off(*args, **options):
        raise KeyboardInterrupt

    others = {"table": pa.table({"id": [5, 5, 5]}), "arrays": {"vectors": np.ones((3, 2))}}
    with monkeypatch.context() as patched:
        patched.setattr("pyarrow.parquet.write_table", break_off)
        with pytest.raises(KeyboardInterrupt):
            store.write(rows, **others)
    assert sorted(os.listdir(store.folder / "segments")) == ["rows-000000003-000000006", "rows-000000006-000000007"]
    store.write(rows, **others)
    assert store.segment(rows).rows()["id"].to_pylist() == [5, 5, 5]


def test_one_pass_is_made_of_all_that_is_missing():
    asked = []

    def embed(batches):
        asked.append(batches)
        return (list(batch) for batch in batches)

    found = list(embed_by_segment([range(3), range(6, 7)], 2, embed))
    assert asked == [[range(2), range(2, 3), range(6, 7)]]
    assert found == [(range(3), [[0, 1], [2]]), (range(6, 7), [[6]])]
    assert split_rows(range(0), 3) == []


def test_any_array_is_mapped(tmp_path):
    for array in (np.array([True, False]), np.arange(5), np.array(3.5)):
        np.save(tmp_path / "a.npy", array)
        assert map_array(tmp_path / "a.npy").tolist() == array.tolist()
