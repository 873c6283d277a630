"""The files with which sentence-transformers opens a published folder as an image–text model: settings, no code."""

from pathlib import Path
from typing import Any

from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from ...core.json_files import write_json
from ...models.configuration_hf_clip import HFClipConfig
from ...models.processing_hf_clip import HFClipProcessor

_MODULES = "sentence_transformers.base.modules"
_OLDEST = "6.0.0"  # sentence-transformers before it has no modules of these names


def write_files(source: Path, target: Path, config: HFClipConfig | None, processor: HFClipProcessor) -> None:
    """As `core.families` has it; the source adds nothing."""
    write_sentence_transformers_files(target, config, processor)


def write_sentence_transformers_files(
    folder: str | Path, config: HFClipConfig | None, processor: HFClipProcessor
) -> None:
    """Writes `modules.json`, `config_sentence_transformers.json` and `sentence_bert_config.json` beside a saved model
    and its processor.

    With them `SentenceTransformer(folder, trust_remote_code=True)` encodes texts, and pictures (PIL images, paths,
    addresses), into the model's own `text_embeds` and `image_embeds`; one call takes texts or pictures, not both. Its
    `max_seq_length` is the processor's `max_text_length`, or as much as the text tower reads.

    Args:
        config: of the saved model; `None` for an adapter, whose base has it.
    """
    features = {side: f"get_{side}_features" for side in ("text", "image")}
    transformer: dict[str, Any] = {
        "transformer_task": "feature-extraction",
        "modality_config": {
            side: {"method": method, "method_output_name": "pooler_output"} for side, method in features.items()
        },
        "module_output_name": "sentence_embedding",
        # Not every image processor makes three channels of a grey picture by itself.
        "processing_kwargs": {"image": {"do_convert_rgb": True}},
    }
    if processor.text_padding == "max_length":
        transformer["processing_kwargs"]["text"] = {"padding": "max_length"}
    if length := _max_length(config, processor):
        transformer["processor_kwargs"] = {"model_max_length": length}
    files: dict[str, object] = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": f"{_MODULES}.transformer.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Normalize", "type": f"{_MODULES}.normalize.Normalize"},
        ],
        "config_sentence_transformers.json": {
            "__version__": {"sentence_transformers": _OLDEST},
            "default_prompt_name": None,
            "model_type": "SentenceTransformer",
            "prompts": {"document": "", "query": ""},
            "similarity_fn_name": "cosine",
        },
        "sentence_bert_config.json": transformer,
    }
    for name, content in files.items():
        write_json(Path(folder, name), content)


def _max_length(config: HFClipConfig | None, processor: HFClipProcessor) -> int | None:
    """Tokens that texts are cut after; `None` where nothing limits them."""
    positions = getattr(config.text_config, "max_position_embeddings", None) if config else None
    limits = [processor.max_text_length, processor.tokenizer.model_max_length, positions]
    length = min(limit for limit in limits if limit is not None and limit > 0)
    return None if length >= VERY_LARGE_INTEGER else length
