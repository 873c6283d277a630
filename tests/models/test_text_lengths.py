"""How long a text may be."""

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoProcessor,
    GPT2Config,
    GPT2Model,
)

from hf_clip import create_model_and_processor
from hf_clip.models.towers import open_model_and_processor


def test_a_tokenizer_without_padding_gets_some(tower_folders, tokenizer, tmp_path):
    text = GPT2Config(vocab_size=99, n_positions=64, n_embd=32, n_layer=2, n_head=4, eos_token_id=3, bos_token_id=3)
    GPT2Model(text).save_pretrained(tmp_path / "gpt2")
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    tokenizer.save_pretrained(tmp_path / "gpt2")
    model, processor = create_model_and_processor(tower_folders[0], str(tmp_path / "gpt2"))
    assert model.config.text_pooling == "last"
    assert processor.tokenizer.pad_token == "[SEP]"
    assert processor(text=["a", "a b c"], return_tensors="pt")["attention_mask"].sum(1).tolist()[0] < 5


SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 37,
}


def text_tower(folder, tokenizer, kind: str, told: int | None, **sizes) -> str:
    """A tower of a type, whose tokenizer says a limit or, as many do, none."""
    tokenizer.model_max_length = int(1e30) if told is None else told
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(kind, **(SIZES | sizes))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(("kind", "sizes", "told", "length"), [
    ("bert", {"max_position_embeddings": 40}, None, 40),
    ("bert", {"max_position_embeddings": 40}, 512, 40),
    ("bert", {"max_position_embeddings": 40}, 30, 30),
    ("distilbert", {"max_position_embeddings": 40, "dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 9}, None, 40),
    # These count from behind the padding's number, 0 of this tokenizer.
    ("roberta", {"max_position_embeddings": 40, "pad_token_id": 1}, None, 38),
    ("xlm-roberta", {"max_position_embeddings": 40, "pad_token_id": 1}, None, 38),
    ("camembert", {"max_position_embeddings": 40, "pad_token_id": 1}, 512, 38),
    ("mpnet", {"max_position_embeddings": 40, "pad_token_id": 1}, 512, 38),
    ("gpt2", {"n_positions": 40, "n_embd": 32, "n_layer": 1, "n_head": 4}, None, 40),
    ("opt", {"max_position_embeddings": 40, "ffn_dim": 37, "word_embed_proj_dim": 32}, None, 40),
])  # fmt: skip
def test_no_text_is_longer_than_can_be_read(kind, sizes, told, length, tower_folders, tokenizer, tmp_path):
    tower = text_tower(tmp_path / "tower", tokenizer, kind, told, **sizes)
    model, processor = create_model_and_processor(tower_folders[0], tower)
    assert processor.max_text_length == processor.tokenizer.model_max_length == length
    tokens = processor(text=["a " * 600, "b"], return_tensors="pt")
    assert tokens["input_ids"].shape == (2, length)
    with torch.no_grad():
        assert model.eval()(**tokens).text_embeds.isfinite().all()
        if told != length:  # not one token more would go
            with pytest.raises((IndexError, RuntimeError)):
                model(**processor(text="a " * 600, max_length=length + 1, return_tensors="pt"))
    model.save_pretrained(tmp_path / "pair")
    processor.save_pretrained(tmp_path / "pair")
    again = AutoProcessor.from_pretrained(tmp_path / "pair")
    assert len(again(text="a " * 600)["input_ids"]) == length
    assert open_model_and_processor(str(tmp_path / "pair"))[1].max_text_length == length


def test_a_tower_that_counts_no_positions_takes_any_text(tower_folders, tokenizer, tmp_path):
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
    tower = text_tower(tmp_path / "t5", tokenizer, "t5", None, **sizes)
    _, processor = create_model_and_processor(tower_folders[0], tower)
    assert processor.max_text_length is None
    assert len(processor(text="a " * 600)["input_ids"]) == 602
    assert create_model_and_processor(tower_folders[0], tower, default_text_length=77)[1].max_text_length == 77
    asked = {"max_text_length": 9, "default_text_length": 77}
    assert create_model_and_processor(tower_folders[0], tower, **asked)[1].max_text_length == 9


def test_an_exchanged_tower_brings_its_limit(tower_folders, tokenizer, tmp_path):
    for part in create_model_and_processor(*tower_folders, max_text_length=60):
        part.save_pretrained(tmp_path / "pair")
    tower = text_tower(tmp_path / "tower", tokenizer, "roberta", None, max_position_embeddings=40, pad_token_id=1)
    _, processor = open_model_and_processor(str(tmp_path / "pair"), text_model=tower)
    assert processor.max_text_length == processor.tokenizer.model_max_length == 38
    assert open_model_and_processor(str(tmp_path / "pair"), vision_model=tower_folders[0])[1].max_text_length == 60
