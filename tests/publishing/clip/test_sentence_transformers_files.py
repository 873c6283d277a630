"""A published folder in sentence-transformers itself: the model's own embeddings, its evaluators, losses and saves."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import COLORS, tiny_model
from PIL import Image
from strangers import run_stranger
from transformers import AutoModel, AutoProcessor, ConvNextImageProcessor, SiglipTextConfig

from hf_clip import HFClipModel, HFClipProcessor, create_model_and_processor
from hf_clip.publishing.clip.sentence_transformers_files import write_sentence_transformers_files

sentence_transformers = pytest.importorskip("sentence_transformers")

TEXTS = ["red", "a very long text of many letters", "b a"]
LENGTH = 9


@pytest.fixture
def pictures():
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (40, 50, 3), dtype=np.uint8)) for _ in range(3)]


def published(folder, processor, **config):
    """The folder, its model and its processor."""
    model = tiny_model(**config).eval()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_sentence_transformers_files(folder, model.config, processor)
    return str(folder), model, processor


@pytest.fixture
def folder(processor, tmp_path):
    processor.max_text_length = LENGTH
    return published(tmp_path / "model", processor)


def opened(folder):
    return sentence_transformers.SentenceTransformer(str(folder), trust_remote_code=True)


@torch.no_grad()
def own_embeddings(model, processor, pictures, texts=TEXTS):
    output = model(**processor(images=pictures, text=texts, return_tensors="pt"))
    return output.image_embeds.numpy(), output.text_embeds.numpy()


def assert_the_models_own(encoder, model, processor, pictures, texts=TEXTS):
    image_embeds, text_embeds = own_embeddings(model, processor, pictures, texts)
    np.testing.assert_allclose(encoder.encode(pictures), image_embeds, atol=1e-6)
    np.testing.assert_allclose(encoder.encode(texts), text_embeds, atol=1e-6)


def test_embeddings_are_the_models_own(folder, pictures):
    path, model, processor = folder
    encoder = opened(path)
    assert_the_models_own(encoder, model, processor, pictures)
    assert (encoder.max_seq_length, encoder.get_embedding_dimension()) == (LENGTH, 16)
    assert encoder.modalities == ["text", "image"]
    assert encoder.similarity_fn_name == "cosine"
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(TEXTS), axis=1), 1, atol=1e-6)
    assert encoder.preprocess(TEXTS)["input_ids"].shape == (3, LENGTH)  # the longest is cut
    with pytest.raises(ValueError, match="Encode each modality separately"):
        encoder.encode([TEXTS[0], pictures[0]])


def test_a_text_tower_that_reads_padding_gets_it(processor, pictures, tmp_path):
    processor.text_padding, processor.max_text_length = "max_length", LENGTH
    tower = SiglipTextConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=37,
        max_position_embeddings=LENGTH, projection_size=32,
    )  # fmt: skip
    path, model, processor = published(tmp_path / "model", processor, text_config=tower, loss="sigmoid")
    encoder = opened(path)
    assert_the_models_own(encoder, model, processor, pictures)
    assert encoder.preprocess(["a"])["input_ids"].shape == (1, LENGTH)
    unpadded = processor(text=["a"], padding="longest", return_tensors="pt")
    assert not np.allclose(encoder.encode("a"), model(**unpadded).text_embeds[0].detach(), atol=1e-3)


def test_a_text_is_cut_where_the_tower_ends(processor, tmp_path):
    processor.tokenizer.model_max_length = int(1e30)  # as of a tokenizer that says nothing
    path, model, _ = published(tmp_path / "model", processor)
    encoder = opened(path)
    assert encoder.max_seq_length == model.config.text_config.max_position_embeddings
    assert np.isfinite(encoder.encode("a " * 200)).all()


def test_its_max_seq_length_can_be_lowered(folder):
    encoder = opened(folder[0])
    encoder.max_seq_length = 4
    assert encoder.preprocess(TEXTS)["input_ids"].shape == (3, 4)
    np.testing.assert_allclose(encoder.encode("a b c d"), encoder.encode("a b"), atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA"])
def test_pictures_of_any_kind_and_their_paths(mode, processor, pictures, tmp_path):
    processor.image_processor = ConvNextImageProcessor(size={"shortest_edge": 32})  # makes no RGB unless it is told
    path, model, processor = published(tmp_path / "model", processor)
    picture = pictures[0].convert(mode)
    picture.save(tmp_path / "picture.png")
    expected = own_embeddings(model, processor, [picture.convert("RGB")])[0][0]
    encoder = opened(path)
    np.testing.assert_allclose(encoder.encode(picture), expected, atol=1e-6)
    np.testing.assert_allclose(encoder.encode(str(tmp_path / "picture.png")), expected, atol=1e-6)


def test_what_it_saves_says_the_same_and_opens_everywhere(folder, pictures, tmp_path):
    path, model, processor = folder
    again = tmp_path / "again"
    opened(path).save_pretrained(str(again))
    by_the_tokenizer, of_the_day = "processor_kwargs", "__version__"
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        ours, theirs = (json.loads((tmp_path / side / name).read_text()) for side in ("model", "again"))
        if isinstance(ours, dict):
            ours, theirs = (each | {by_the_tokenizer: None, of_the_day: None} for each in (ours, theirs))
        assert ours == theirs
    encoder = opened(again)
    assert encoder.max_seq_length == LENGTH
    assert_the_models_own(encoder, model, processor, pictures)
    assert_the_models_own(encoder, HFClipModel.from_pretrained(again), AutoProcessor.from_pretrained(again), pictures)


def test_its_evaluator_gives_our_recalls(folder):
    """Against the argsort of the cosines, each picture being sought by its colour."""
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    path, model, processor = folder
    pictures = [Image.new("RGB", (40, 36), color) for color in COLORS]
    keys = [str(row) for row in range(len(COLORS))]
    evaluator = InformationRetrievalEvaluator(
        dict(zip(keys, COLORS, strict=True)),
        dict(zip(keys, pictures, strict=True)),
        {key: {key} for key in keys},
        name="colors",
        accuracy_at_k=[1, 3, 5],
    )
    measured = evaluator(opened(path))
    image_embeds, text_embeds = own_embeddings(model, processor, pictures, COLORS)
    order = np.argsort(-text_embeds @ image_embeds.T, axis=1)
    ranks = (order == np.arange(len(COLORS))[:, None]).argmax(1)
    for k in (1, 3, 5):
        assert measured[f"colors_cosine_accuracy@{k}"] == pytest.approx((ranks < k).mean())


def test_its_ranking_loss_is_ours_and_trains_both_towers(folder):
    """One direction of CLIP's loss at a fixed temperature, which is no parameter of theirs."""
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    path, model, processor = folder
    pictures = [Image.new("RGB", (40, 36), color) for color in COLORS]
    encoder = opened(path).eval()
    loss = MultipleNegativesRankingLoss(encoder, scale=1 / 0.07)
    value = loss([encoder.preprocess(pictures), encoder.preprocess(COLORS)], None)
    logits = model(**processor(images=pictures, text=COLORS, return_tensors="pt")).logits_per_image
    assert value.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, torch.arange(8)).item(), rel=1e-5)
    value.backward()
    inner = encoder.transformers_model
    without = {n for n, p in inner.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    assert without == {"logit_scale"}
    before = {name: weight.clone() for name, weight in inner.state_dict().items()}
    torch.optim.SGD(encoder.parameters(), lr=0.1).step()
    moved = {
        name.split(".")[0] for name, weight in inner.state_dict().items() if not torch.equal(weight, before[name])
    }
    assert moved == {"text_model", "vision_model", "text_projection", "visual_projection"}


def test_hf_clip_and_transformers_take_the_folder_as_before(processor, tmp_path):
    with_files = tmp_path / "with"
    path, _, _ = published(with_files, processor)
    without = tmp_path / "without"
    shutil.copytree(with_files, without)
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (without / name).unlink()
    made = [create_model_and_processor("scratch/resnet-10", str(folder)) for folder in (with_files, without)]
    (one, its_processor), (other, other_processor) = made
    assert one.config.text_pooling == other.config.text_pooling
    assert all(torch.equal(p, other.text_model.state_dict()[name]) for name, p in one.text_model.state_dict().items())
    policies = [(each.text_padding, each.max_text_length) for each in (its_processor, other_processor)]
    assert policies == [("longest", 64)] * 2
    assert type(AutoModel.from_pretrained(path)) is HFClipModel
    assert type(AutoProcessor.from_pretrained(path)) is HFClipProcessor


STRANGER = """
import sys
import numpy as np
from PIL import Image
from sentence_transformers import SentenceTransformer

folder, picture, result = sys.argv[1:]
encoder = SentenceTransformer(folder, trust_remote_code=True)
assert type(encoder.transformers_model).__module__.startswith("transformers_modules")
np.savez(result, texts=encoder.encode(["a b", "c"]), pictures=encoder.encode([Image.open(picture)]))
encoder.save_pretrained(folder + "/again")
np.testing.assert_allclose(
    SentenceTransformer(folder + "/again", trust_remote_code=True).encode("c"), encoder.encode("c"), atol=1e-6
)
"""


def test_opens_where_hf_clip_is_not_installed(folder, pictures, tmp_path):
    path, model, processor = folder
    pictures[0].save(tmp_path / "picture.png")
    run_stranger(STRANGER, path, tmp_path / "picture.png", tmp_path / "result.npz", folder=tmp_path)
    result = np.load(tmp_path / "result.npz")
    image_embeds, text_embeds = own_embeddings(model, processor, pictures[:1], ["a b", "c"])
    np.testing.assert_allclose(result["pictures"], image_embeds, atol=1e-6)
    np.testing.assert_allclose(result["texts"], text_embeds, atol=1e-6)
