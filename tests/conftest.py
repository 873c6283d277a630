"""Tiny random towers, a tokenizer that spells, and small folders of captioned pictures. Nothing is downloaded."""

import copy
import gc
import inspect
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

if "HF_DATASETS_CACHE" not in os.environ:
    _cache = tempfile.TemporaryDirectory()  # removed when the tests end
    os.environ["HF_DATASETS_CACHE"] = _cache.name
_worker = os.environ.get("PYTEST_XDIST_WORKER", "")
if _worker != Path(os.environ["HF_DATASETS_CACHE"]).name:  # what a worker starts shares the worker's
    os.environ["HF_DATASETS_CACHE"] += f"/{_worker}"
if _worker:  # together they have as many threads as there are cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts tests in the background has it ignored

import huggingface_hub.constants
import huggingface_hub.utils._http
import pytest
import torch
from hub_server import HubServer
from PIL import Image
from transformers import BertConfig, BertTokenizer, ResNetConfig

import hf_clip.publishing.hub
from hf_clip import HFClipConfig, HFClipModel, HFClipProcessor
from hf_clip.models.image_processors import square_image_processor
from hf_clip.models.losses_hf_clip import LOSSES
from hf_clip.publishing import hub_calls
from hf_clip.publishing.hub_client import answer
from hf_clip.publishing.hub_process import ask_in_a_process

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
# The files that travel with a saved model.
_PARTS = (
    "checkpointing", "configuration", "decoding", "loss", "losses", "modeling", "pipelines", "pooling", "processing",
    "remote_code", "requirements", "tiles", "towers",
)  # fmt: skip
CODE = {f"{part}_hf_clip.py" for part in _PARTS}
CODE |= {Path(inspect.getfile(loss.function)).name for loss in LOSSES.values()}
COLORS = ["red", "green", "blue", "yellow", "black", "orange", "purple", "brown"]

# What BERT's tokenizer, which drops case, accents, white space and control characters, reads as the same.
SAME = ["red a", "Red A", "red a\n", " red \t a", "r\u00e9d a", "re\u0301d a", "red\u00a0a", "\ufeffred a"]


def tiny_text_config(**changes) -> BertConfig:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=64, **(sizes | no_dropout | changes))


def tiny_vision_config(layer_type: str = "basic", **changes) -> ResNetConfig:
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 40], "depths": [1, 1, 2, 1]}
    return ResNetConfig(layer_type=layer_type, **(sizes | changes))


_models: dict[str, tuple[HFClipModel, torch.Tensor]] = {}  # of each seed and configuration the first, never handed out


def tiny_model(seed: int = 0, **config) -> HFClipModel:
    """A model of one's own; torch's generator is left as building it would leave it."""
    defaults = {"text_config": tiny_text_config(), "vision_config": tiny_vision_config(), "projection_dim": 16}
    whole = HFClipConfig(**(defaults | config))
    key = f"{seed} {whole.to_json_string(use_diff=False)}"
    if key not in _models:
        torch.manual_seed(seed)
        _models[key] = HFClipModel(whole), torch.get_rng_state()
    model, state = _models[key]
    torch.set_rng_state(state)
    return copy.deepcopy(model)


def tiny_inputs(pairs: int = 4, seed: int = 0, size: int = 32) -> dict[str, torch.Tensor]:
    """Distinct pictures and captions of unequal length, padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    attention_mask = (torch.arange(7) < torch.randint(3, 8, (pairs, 1), generator=generator)).long()
    return {
        "input_ids": torch.randint(5, len(VOCABULARY), (pairs, 7), generator=generator) * attention_mask,
        "attention_mask": attention_mask,
        "pixel_values": torch.randn(pairs, 3, size, size, generator=generator),
    }


def pytest_collection_finish():
    """The Trainer collects garbage whenever it has trained, and would look each time at all that was imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def tokenizer(tmp_path_factory) -> BertTokenizer:
    file = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    file.write_text("\n".join(VOCABULARY))
    return BertTokenizer(vocab=str(file), model_max_length=64)


@pytest.fixture
def processor(tokenizer) -> HFClipProcessor:
    return HFClipProcessor(image_processor=square_image_processor(32), tokenizer=tokenizer)


@pytest.fixture
def tower_folders(tmp_path, tokenizer):
    """(image tower folder, text tower folder), as `save_pretrained` of transformers leaves them."""
    from transformers import BertModel, ResNetModel

    torch.manual_seed(0)
    ResNetModel(tiny_vision_config()).save_pretrained(tmp_path / "resnet")
    square_image_processor(32).save_pretrained(tmp_path / "resnet")
    BertModel(tiny_text_config()).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    return str(tmp_path / "resnet"), str(tmp_path / "bert")


def write_pictures(folder, count: int = 8, captions_each: int = 1):
    """An image folder of plain colours with `metadata.jsonl`; picture i is COLORS[i], a little bluer each round."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        color = COLORS[i % len(COLORS)]
        picture = Image.new("RGB", (40, 36), color)
        picture.putpixel((i % 40, i // 40), (1, 2, 3))
        picture.save(folder / f"{i}.png")
        captions = [f"{'very ' * n}{color} {LETTERS[i % 26]}" for n in range(captions_each)]
        rows.append({"file_name": f"{i}.png", "caption": captions[0] if captions_each == 1 else captions})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_labelled_pictures(folder, count: int = 8):
    """The same, and beside their captions one of two classes each."""
    file = write_pictures(folder, count=count) / "metadata.jsonl"
    rows = [
        json.loads(line) | {"label": ("red", "blue")[i % 2]} for i, line in enumerate(file.read_text().splitlines())
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def model_folder(tmp_path, processor):
    """A saved tiny model with its processor."""
    tiny_model().save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def pictures(tmp_path):
    return write_pictures(tmp_path / "pictures")


@pytest.fixture
def one_thread():
    """Sums in one order: bits can be compared with those of a process that was started with OMP_NUM_THREADS=1."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def server():
    with HubServer() as hub:
        yield hub


@pytest.fixture
def hub(server, monkeypatch):
    """A new Hub, to which this process is online, by LFS and without pauses between the client's own attempts."""
    server.reset()
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", "/nowhere/token")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    at_once = SimpleNamespace(sleep=lambda seconds: None, monotonic=time.monotonic)
    monkeypatch.setattr(huggingface_hub.utils._http, "time", at_once)
    monkeypatch.setattr(hub_calls, "time", at_once)
    # In this process: that of its own has tests of its own (`in_a_process`).
    monkeypatch.setattr(hf_clip.publishing.hub, "ask_in_a_process", lambda question, timeout: answer(question))
    return server


@pytest.fixture
def in_a_process(hub, monkeypatch):
    """Questions to that Hub go through a process of their own, as outside of tests."""
    monkeypatch.setattr(hf_clip.publishing.hub, "ask_in_a_process", ask_in_a_process)


@pytest.fixture
def own_hub(hub, monkeypatch):
    """The same, as the Hub that the client asks by default, with a token of the user's."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.endpoint)
    files = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    return hub
