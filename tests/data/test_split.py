"""Splits by picture: none on both sides, whatever it is called; the same for any order of rows."""

import datasets
import numpy as np
import pandas as pd
import pytest
from conftest import write_pictures
from PIL import Image

from hf_clip.core.errors import InputError
from hf_clip.data.images import read_image
from hf_clip.data.sources import Source, open_source
from hf_clip.data.split import content_keys, split_by_image


def folder_of_copies(tmp_path, order: int = 1):
    """40 pictures; every fourth has two captions, and every fifth lies there under a second name."""
    folder = write_pictures(tmp_path / "pictures", count=40)
    rows = [(f"{i}.png", f"caption {i}") for i in range(40)]
    rows += [(f"{i}.png", f"again {i}") for i in range(0, 40, 4)]
    for i in range(0, 40, 5):
        (folder / "copies").mkdir(exist_ok=True)
        (folder / "copies" / f"{i}.png").write_bytes((folder / f"{i}.png").read_bytes())
        rows.append((f"copies/{i}.png", f"copy {i}"))
    pd.DataFrame(rows[::order], columns=["image", "caption"]).to_csv(folder / "a.csv", index=False)
    return folder


def contents(source: Source) -> list[int]:
    return [read_image(record[source.image_column], source.folder)[1] for record in source.rows]


def captions(source: Source) -> set[str]:
    return {source.captions(row)[0] for row in range(len(source))}


@pytest.fixture(params=["paths", "bytes"])
def source(request, tmp_path) -> Source:
    folder = folder_of_copies(tmp_path)
    if request.param == "paths":
        return open_source(folder / "a.csv")
    frame = pd.read_csv(folder / "a.csv")
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    images = [{"bytes": (folder / name).read_bytes(), "path": None} for name in frame["image"]]
    rows = datasets.Dataset.from_dict({"image": images, "caption": list(frame["caption"])}, features=features)
    rows.to_parquet(tmp_path / "a.parquet")
    return open_source(tmp_path / "a.parquet")


def test_no_picture_is_on_both_sides_and_none_is_lost(source):
    train, held_out = split_by_image(source, 0.25)
    assert len(train) + len(held_out) == len(source) == 58
    assert captions(train) | captions(held_out) == captions(source)
    assert set(contents(train)).isdisjoint(contents(held_out))
    assert len(set(contents(held_out))) == 10
    assert len(set(contents(train))) == 30


def test_the_order_of_rows_and_the_place_of_the_files_make_no_difference(tmp_path):
    one, other = (
        split_by_image(open_source(folder_of_copies(tmp_path / name, order) / "a.csv"), 0.3)[1]
        for name, order in (("here", 1), ("there", -1))
    )
    assert captions(one) == captions(other)


def test_the_seed_decides(source):
    held_out = [captions(split_by_image(source, 0.3, seed)[1]) for seed in (0, 0, 1, 2)]
    assert held_out[0] == held_out[1]
    assert len(set(map(frozenset, held_out))) == 3


def test_the_split_of_a_content_stays_what_it_is(tmp_path):
    # A run that is resumed, with a later version or elsewhere, splits again.
    pd.DataFrame({"image": list(map(str.encode, "abcdefghij")), "caption": list("abcdefghij")}).to_parquet(
        tmp_path / "a.parquet"
    )
    assert captions(split_by_image(open_source(tmp_path / "a.parquet"), 0.3)[1]) == set("bdf")


def test_missing_files_count_by_their_names(tmp_path):
    rows = [{"image": f"{i % 5}.png", "caption": f"{i}"} for i in range(10)]
    pd.DataFrame(rows).to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    train, held_out = split_by_image(open_source(tmp_path / "a.jsonl"), 0.4)
    assert (len(train), len(held_out)) == (6, 4)


@pytest.mark.parametrize("share", [0, 1, 0.01, 0.99, -0.2, 2, float("nan")])
def test_a_share_that_leaves_one_side_empty_is_refused(share, source):
    with pytest.raises(InputError, match=r"a share of .* of the 40 pictures of .* leaves one side empty: give one"):
        split_by_image(source, share)


def test_streams_are_refused(pictures):
    with pytest.raises(InputError, match="is streamed and cannot be split"):
        split_by_image(open_source(pictures, streaming=True), 0.5)


@pytest.mark.parametrize("kind", ["paths", "bytes"])
def test_exact_keys_change_with_a_pixel_in_the_middle_of_a_large_picture(kind, tmp_path):
    """Size, beginning and end are the same, which is enough to split by."""
    folder = write_pictures(tmp_path / "pictures", count=2)
    (folder / "metadata.jsonl").write_text('{"file_name": "0.bmp", "caption": "a"}\n')
    keys = []
    for middle in ((0, 0, 0), (255, 255, 255)):
        picture = Image.new("RGB", (200, 200), "red")
        picture.putpixel((100, 100), middle)
        picture.save(folder / "0.bmp")
        source = open_source(folder)
        if kind == "bytes":
            rows = {"image": [{"bytes": (folder / "0.bmp").read_bytes(), "path": None}], "caption": ["a"]}
            datasets.Dataset.from_dict(rows).to_parquet(tmp_path / f"{middle[0]}.parquet")
            source = open_source(tmp_path / f"{middle[0]}.parquet")
        keys.append([content_keys(source, exact=exact) for exact in (False, True)])
    assert np.array_equal(keys[0][0], keys[1][0])
    assert not np.array_equal(keys[0][1], keys[1][1])
