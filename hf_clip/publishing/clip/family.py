"""The family of CLIP, as `core.families` has it."""

from ...core.families import Family

_ROOM = "hf_clip.publishing.clip"

FAMILY = Family(
    model_type="hf_clip",
    config="hf_clip.models.configuration_hf_clip:HFClipConfig",
    processor="hf_clip.models.processing_hf_clip:HFClipProcessor",
    open_model="hf_clip.models.towers:open_model_and_processor",
    card=f"{_ROOM}.card:CARD",
    task="zero-shot-image-classification",
    tags=("clip", "image-text-retrieval", "feature-extraction"),
    tasks=("retrieval", "zero-shot", "knn", "linear-probe"),
    parts=("HFClipTextModelWithProjection", "HFClipVisionModelWithProjection"),
    digested=("text_pooling", "vision_pooling"),
    files=("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"),
    write_files=f"{_ROOM}.sentence_transformers_files:write_files",
)
