"""The short README of a run folder: what the model is, how to use it, how good it is."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from ..configuration_hf_clip import HFClipConfig

_TEMPLATE = Path(__file__).with_name("readme_template.md")


def write_readme(
    folder: Path,
    config: HFClipConfig,
    metrics: dict[str, float],
    *,
    name: str,
    towers: tuple[str, str],
    data: str,
    credit: str = "",
    fixed_length: int | None = None,
) -> None:
    """Writes `README.md` into a folder with a saved model.

    Args:
        name: of the model.
        metrics: with the names that `evaluation.tasks.measure` gives them; may be empty.
        towers: what the image tower and the text tower were opened from.
        data: what the model was trained on.
        credit: attribution that the training pictures' licence asks for.
        fixed_length: tokens that every text is padded to, where the text tower wants that.
    """
    pictures = [name for name in ("retrieval.png", "training_curve.png") if (folder / "pictures" / name).is_file()]
    card = ModelCard.from_template(
        ModelCardData(
            pipeline_tag="zero-shot-image-classification",
            library_name="transformers",
            tags=["hf_clip", "clip", "image-text-retrieval"],
        ),
        template_path=str(_TEMPLATE),
        name=name,
        vision=_describe(config.vision_config.model_type, towers[0]),
        text=_describe(config.text_config.model_type, towers[1]),
        projection_dim=config.projection_dim,
        data=_base_name(data),
        rows=_recall_rows(metrics),
        classification=_classification_rows(metrics),
        images=metrics.get("images"),
        captions=metrics.get("captions"),
        pictures=pictures,
        credit=credit,
        fixed_length=fixed_length,
        sigmoid=config.loss == "sigmoid",
    )
    card.save(folder / "README.md")


def _describe(model_type: str, tower: str) -> str:
    return f"{model_type} ({_base_name(tower)})" if tower else model_type


def _base_name(name: str) -> str:
    """A Hub id as it is; of a local folder only its last part, for a README must not tell about a machine."""
    path = Path(name)
    return path.resolve().name if (path.is_absolute() or path.exists()) else name


def _recall_rows(metrics: dict[str, float]) -> list[dict[str, Any]]:
    ks = [name.rpartition("@")[2] for name in metrics if name.startswith("image_retrieval_recall@")]
    directions = {"text → image": "image_retrieval", "image → text": "text_retrieval"}
    return [
        {
            "direction": direction,
            "k": k,
            "recall": f"{metrics[f'{prefix}_recall@{k}']:.3f}",
            "chance": f"{metrics[f'{prefix}_chance@{k}']:.3f}",
        }
        for direction, prefix in directions.items()
        for k in ks
    ]


def _classification_rows(metrics: dict[str, float]) -> list[dict[str, str]]:
    """Of zero-shot classification, neighbours and probe: what there is a chance beside."""
    return [
        {"metric": name, "value": f"{value:.3f}", "chance": f"{metrics[f'{name}_chance']:.3f}"}
        for name, value in metrics.items()
        if name.startswith(("zero_shot_", "knn", "linear_probe_")) and f"{name}_chance" in metrics
    ]
