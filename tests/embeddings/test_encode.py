"""Embeddings of a source: in row order, each row once, with all its captions, without what could not be read."""

import json
from types import SimpleNamespace

import datasets
import pytest
import torch
from conftest import SAME, tiny_model, write_pictures
from PIL import Image

from hf_clip import HFClipProcessor
from hf_clip.core.errors import InputError
from hf_clip.data.collator import HFClipCollator
from hf_clip.data.dataset import CaptionedImages
from hf_clip.data.sources import open_source
from hf_clip.embeddings.encode import (
    EmbeddedBatch,
    embed_batch,
    embed_images,
    embed_prompts,
    embed_source,
    embed_texts,
    join_batches,
    max_caption_length,
)
from hf_clip.embeddings.options import EmbedOptions


def batch(rows: list[int], counts: list[int]) -> EmbeddedBatch:
    """Row r has the embedding r, and captions 10 r, 10 r + 1, …"""
    captions = torch.tensor([10 * row + n for row, count in zip(rows, counts, strict=True) for n in range(count)])
    rows = torch.tensor(rows)
    return EmbeddedBatch(
        image_embeds=rows[:, None].float(), text_embeds=captions[:, None].float(), rows=rows,
        caption_counts=torch.tensor(counts), image_ids=rows + 100, caption_ids=captions + 1000,
    )  # fmt: skip


def test_batches_are_joined_in_row_order_and_repeated_rows_count_once():
    # As two processes deliver seven rows: interleaved, the first two once more as padding; row 4 could not be read.
    batches = [batch([0, 1], [2, 1]), batch([5, 6], [1, 3]), batch([2, 3], [1, 2]), batch([0, 1], [2, 1])]
    skipped = [(4, "4.png", "broken"), (4, "4.png", "broken")]
    whole = join_batches(iter(batches), skipped)
    assert whole.image_rows.tolist() == [0, 1, 2, 3, 5, 6]
    assert whole.image_embeds[:, 0].tolist() == [0, 1, 2, 3, 5, 6]
    assert whole.image_ids.tolist() == [100, 101, 102, 103, 105, 106]
    assert whole.text_embeds[:, 0].tolist() == [0, 1, 10, 20, 30, 31, 50, 60, 61, 62]
    assert whole.caption_ids.tolist() == [1000, 1001, 1010, 1020, 1030, 1031, 1050, 1060, 1061, 1062]
    assert whole.text_to_image.tolist() == [0, 0, 1, 2, 3, 3, 4, 5, 5, 5]
    assert whole.skipped == [(4, "4.png", "broken")]


def test_nothing_readable_is_refused():
    with pytest.raises(InputError, match=r"not one picture could be read; the first: a.png, broken: nothing"):
        join_batches([], [(0, "a.png", "broken")])


@pytest.fixture
def source(tmp_path):
    return open_source(write_pictures(tmp_path / "data", count=7, captions_each=2))


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_source_is_embedded_as_its_pictures_and_texts_are(source, processor, batch_size):
    model = tiny_model()
    found = embed_source(model, processor, source, options=EmbedOptions(batch_size=batch_size, progress=False))
    images = [Image.open(source.folder / f"{i}.png").convert("RGB") for i in range(7)]
    texts = [text for row in range(7) for text in source.captions(row)]
    with torch.no_grad():
        inputs = processor(text=texts, images=images, return_tensors="pt")
        expected = model.eval()(**inputs)
    torch.testing.assert_close(found.image_embeds, expected.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.text_embeds, expected.text_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(embed_images(model, processor, images), expected.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(embed_texts(model, processor, texts), expected.text_embeds, atol=1e-5, rtol=0)
    assert found.text_to_image.tolist() == [i // 2 for i in range(14)]


def test_broken_pictures_and_their_captions_are_left_out(source, processor):
    whole = embed_source(tiny_model(), processor, source, options=EmbedOptions(progress=False))
    (source.folder / "0.png").write_bytes(b"")
    (source.folder / "5.png").unlink()
    # A batch of one: the first holds no picture at all.
    found = embed_source(tiny_model(), processor, source, options=EmbedOptions(batch_size=1, progress=False))
    assert found.image_rows.tolist() == [1, 2, 3, 4, 6]
    torch.testing.assert_close(found.image_embeds, whole.image_embeds[[1, 2, 3, 4, 6]], atol=1e-5, rtol=0)
    kept = [2, 3, 4, 5, 6, 7, 8, 9, 12, 13]
    torch.testing.assert_close(found.text_embeds, whole.text_embeds[kept], atol=1e-5, rtol=0)
    assert found.text_to_image.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [entry[:2] for entry in found.skipped] == [(0, "0.png"), (5, "5.png")]


@pytest.mark.parametrize(("tower", "part"), [("image", "visual_projection"), ("text", "text_projection")])
def test_embeddings_that_are_not_finite_name_their_tower(source, processor, tower, part):
    model = tiny_model()
    torch.nn.init.constant_(getattr(model, part).weight, float("nan"))
    items = CaptionedImages(source, processor.image_processor)
    inputs = HFClipCollator(processor)([items[0], items[1]])
    del inputs["skipped"]
    with pytest.raises(FloatingPointError, match=f"the {tower} tower gave embeddings that are not finite"):
        embed_batch(model, inputs)
    embed = embed_images if tower == "image" else embed_texts
    with pytest.raises(FloatingPointError, match=tower):
        embed(model, processor, [Image.new("RGB", (40, 40))] if tower == "image" else ["a"])


def test_many_images_are_embedded_a_few_at_a_time(processor):
    model = tiny_model()
    images = [Image.new("RGB", (32, 32), (i, 2 * i % 256, 0)) for i in range(67)]
    sizes = []
    model.vision_model.register_forward_pre_hook(
        lambda *call: sizes.append(len(call[2]["pixel_values"])), with_kwargs=True
    )
    found = embed_images(model, processor, images)
    assert sizes == [8] * 8 + [3]
    torch.testing.assert_close(found[60:61], embed_images(model, processor, images[60:61]), atol=1e-5, rtol=0)


def test_a_batch_larger_than_a_cpus_caches_is_the_same_batch(source, processor):
    model, items = tiny_model().eval(), CaptionedImages(source, processor.image_processor)
    inputs = HFClipCollator(processor)([items[row % 7] for row in range(19)])
    del inputs["skipped"]
    found = embed_batch(model, dict(inputs))
    with torch.no_grad():
        expected = model(**{name: inputs[name] for name in ("input_ids", "attention_mask", "pixel_values")})
    torch.testing.assert_close(found.image_embeds, expected.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.text_embeds, expected.text_embeds, atol=1e-5, rtol=0)


def test_texts_of_like_length_are_embedded_together_and_given_back_in_order(processor):
    model, widths = tiny_model(), []
    model.register_forward_pre_hook(lambda *call: widths.append(call[2]["input_ids"].shape), with_kwargs=True)
    texts = ["abcdefghijklmnopqrst"[: 1 + 7 * i % 20][:-1] + "zyxwvut"[i // 20] + "x" for i in range(140)]
    found = embed_texts(model, processor, texts)
    # 1 to 20 letters and one more, seven times each, with [CLS] and [SEP]: the 64th has 10, the 128th 19.
    assert widths == [(64, 13), (64, 22), (12, 23)]
    for i in (0, 63, 64, 139):
        torch.testing.assert_close(found[i], embed_texts(model, processor, [texts[i]])[0], atol=1e-5, rtol=0)


def test_texts_that_read_the_same_are_embedded_once_to_the_same_bits(processor):
    model, seen = tiny_model(), []
    model.register_forward_pre_hook(lambda *call: seen.append(len(call[2]["input_ids"])), with_kwargs=True)
    texts = [*SAME, *(a + b for a in "abcdefgh" for b in "abcdefgh"), "red a\r\n", "y" * 70, "y" * 80]
    embeds, ids, cut = embed_prompts(model, processor, texts)
    assert sum(seen) == len(embeds.unique(dim=0)) == len(ids.unique()) == 1 + 64 + 1
    assert torch.equal(embeds[0], embeds[-3])
    assert cut.nonzero()[:, 0].tolist() == [len(texts) - 2, len(texts) - 1]


def test_captions_that_read_the_same_have_one_id(tmp_path, processor):
    folder = write_pictures(tmp_path / "data", count=4)
    rows = [{"file_name": f"{i}.png", "caption": ["red a", "Red a ", "x" * 70, "x" * 65][i]} for i in range(4)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    embeddings = embed_source(
        tiny_model(), processor, open_source(folder), options=EmbedOptions(batch_size=3, progress=False)
    )
    ids = embeddings.caption_ids.tolist()
    assert [ids.index(each) for each in ids] == [0, 0, 2, 2]
    assert (embeddings.captions_cut.tolist(), embeddings.cut_captions) == ([False, False, True, True], 2)


def test_convolutions_see_pictures_channels_last_and_the_model_stays_as_it_is(processor):
    model, seen = tiny_model(), []
    strides = {name: value.stride() for name, value in model.state_dict().items()}
    model.vision_model.register_forward_pre_hook(
        lambda *call: seen.append(call[2]["pixel_values"].is_contiguous(memory_format=torch.channels_last)),
        with_kwargs=True,
    )
    embed_images(model, processor, [Image.new("RGB", (32, 32), "red")])
    assert seen == [True]
    assert {name: value.stride() for name, value in model.state_dict().items()} == strides


def test_caption_length_is_the_smallest_limit(processor):
    model = tiny_model()  # 64 positions, and the tokenizer says 64 as well
    assert max_caption_length(model, processor) == 64
    processor.tokenizer.model_max_length = 50
    assert max_caption_length(model, processor) == 50
    processor.max_text_length = 20
    assert max_caption_length(model, processor) == 20
    model.text_model.config.max_position_embeddings = 10
    assert max_caption_length(model, processor) == 10


def test_towers_and_tokenizers_without_any_limit(processor):
    processor.tokenizer.model_max_length = int(1e30)  # what transformers writes for "no limit"
    tower = torch.nn.Module()
    tower.config = SimpleNamespace()
    length = max_caption_length(torch.nn.ModuleDict({"text_model": tower}), processor)
    row = {"row": 0, "pixel_values": torch.zeros(1), "captions": ["a b " * 100], "image_id": 0, "skipped": []}
    assert HFClipCollator(processor, length)([row])["input_ids"].shape == (1, 202)


def test_texts_are_padded_and_cut_as_the_processor_does(source, tokenizer, processor):
    policy = HFClipProcessor(processor.image_processor, tokenizer, text_padding="max_length", max_text_length=9)
    model, widths = tiny_model(), []
    model.register_forward_pre_hook(
        lambda *call: widths.append(call[2].get("input_ids", torch.empty(0, 0)).shape[1]), with_kwargs=True
    )
    embed_texts(model, policy, ["ab"])
    embed_texts(model, processor, ["ab"])
    embed_source(model, policy, source, options=EmbedOptions(batch_size=4, progress=False))
    assert widths == [9, 4, 9, 9]
    assert embed_texts(model, policy, ["abcdefghijk"]).equal(embed_texts(model, policy, ["abcdefgzzzz"]))


def test_strict_stops_at_the_first_broken_picture(source, processor):
    (source.folder / "5.png").unlink()
    with pytest.raises(InputError, match=r"row 6: 5.png: No such file or directory: mend or remove it, or leave out"):
        embed_source(tiny_model(), processor, source, options=EmbedOptions(strict=True, progress=False))


# ---- labels and pooled features -----------------------------------------------------------------------------------


def labelled(folder, labels: list, **settings):
    """Pictures of `write_pictures` with labels of any kind."""
    rows = {"image": [str(folder / f"{i}.png") for i in range(len(labels))], "kind": labels}
    datasets.Dataset.from_dict(rows).to_parquet(folder / "a.parquet")
    return open_source(folder / "a.parquet", label_column="kind", **settings)


@pytest.mark.parametrize(
    ("labels", "class_names", "names", "expected"),
    [
        ([3, 0, 0, 1, 2, 3, 1], None, None, [0, 0, 1, 2, 1]),
        (list("dabbcda"), None, list("abcd"), [0, 1, 1, 2, 0]),
        (list("dabbcda"), list("dcbax"), list("dcbax"), [3, 2, 2, 1, 3]),
        (
            [["c"], ["a"], [], ["b", "a"], ["a"], ["c"], ["b"]],
            None,
            list("abc"),
            [[1, 0, 0], [0, 0, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0]],
        ),
    ],
)
def test_labels_follow_their_pictures_where_some_are_skipped(
    labels, class_names, names, expected, tmp_path, processor
):
    folder = write_pictures(tmp_path / "data", count=7)
    (folder / "0.png").write_bytes(b"")
    (folder / "5.png").unlink()
    source = labelled(folder, labels, class_names=class_names, captions_required=False)
    found = embed_source(tiny_model(), processor, source, options=EmbedOptions(batch_size=2, progress=False))
    assert found.image_rows.tolist() == [1, 2, 3, 4, 6]
    assert found.labels.tolist() == expected
    assert found.labels.dtype == (torch.int64 if found.labels.ndim == 1 else torch.bool)
    assert found.class_names == names


def test_lists_of_numbers_without_names_are_no_classes(tmp_path, processor):
    source = labelled(write_pictures(tmp_path / "data", count=3), [[5, 0], [1], [2]], captions_required=False)
    found = embed_source(tiny_model(), processor, source, options=EmbedOptions(progress=False))
    assert (len(found.image_embeds), found.labels, found.class_names) == (3, None, None)


def test_no_texts_are_no_rows(processor):
    model = tiny_model()
    assert embed_texts(model, processor, []).shape == (0, model.config.projection_dim)


def test_without_labels_there_are_none(source, processor):
    found = embed_source(tiny_model(), processor, source, options=EmbedOptions(progress=False))
    assert (found.labels, found.class_names, found.image_features) == (None, None, None)


@pytest.mark.parametrize("projection", ["linear", "mlp"])
def test_pooled_is_what_the_image_tower_gives_before_the_projection(projection, processor, tmp_path):
    source = open_source(write_pictures(tmp_path / "data", count=11, captions_each=2))
    (source.folder / "0.png").write_bytes(b"")
    (source.folder / "5.png").unlink()
    model, seen = tiny_model(projection=projection), []
    # A batch of one: the first holds no picture at all.
    plain = {
        size: embed_source(model, processor, source, options=EmbedOptions(batch_size=size, progress=False))
        for size in (1, 64)
    }
    model.vision_model.register_forward_pre_hook(
        lambda *call: seen.append(len(call[2]["pixel_values"])), with_kwargs=True
    )
    for size, expected in plain.items():
        seen.clear()
        found = embed_source(
            model, processor, source, options=EmbedOptions(batch_size=size, progress=False), pooled=True
        )
        assert size == 1 or seen == [8, 1], "each picture is looked at once"
        torch.testing.assert_close(found.image_embeds, expected.image_embeds, atol=1e-6, rtol=0)
        assert found.text_embeds.equal(expected.text_embeds)
        assert found.image_rows.tolist() == [1, 2, 3, 4, 6, 7, 8, 9, 10]
        images = [Image.open(source.folder / f"{i}.png").convert("RGB") for i in found.image_rows.tolist()]
        pixels = processor.image_processor(images, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            features = model.pool_image(pixels)
        assert found.image_features.dtype == torch.float32
        torch.testing.assert_close(found.image_features, features, atol=1e-5, rtol=0)


def test_pooled_features_that_are_not_finite_name_their_tower(source, processor):
    model = tiny_model()
    pool = model.pool_image
    model.pool_image = lambda pixels: pool(pixels) * torch.inf
    with pytest.raises(FloatingPointError, match="the image tower gave embeddings that are not finite"):
        embed_source(model, processor, source, options=EmbedOptions(progress=False), pooled=True)


def test_pooled_pictures_alone(processor, tmp_path):
    folder = write_pictures(tmp_path / "data", count=3)
    (folder / "metadata.jsonl").unlink()
    source = open_source(folder, captions_required=False)
    found = embed_source(tiny_model(), processor, source, options=EmbedOptions(progress=False), pooled=True)
    assert (found.image_features.shape, found.image_embeds.shape) == ((3, 40), (3, 16))
    assert found.text_embeds.shape == (0, 16)
