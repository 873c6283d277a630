"""CLIP from any text encoder and any image encoder, trained and published the Hugging Face way."""

import importlib
from typing import TYPE_CHECKING

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
)

from .core.version import __version__ as __version__
from .models.configuration_hf_clip import HFClipConfig
from .models.loss_hf_clip import Loss
from .models.modeling_hf_clip import (
    HFClipModel,
    HFClipOutput,
    HFClipTextModelWithProjection,
    HFClipVisionModelWithProjection,
)
from .models.processing_hf_clip import HFClipProcessor

if TYPE_CHECKING:
    from .analysis.analyze import analyze as analyze
    from .data.collator import HFClipCollator as HFClipCollator
    from .data.sources import open_source as open_source
    from .embeddings.embed import embed as embed
    from .embeddings.options import EmbedOptions as EmbedOptions
    from .evaluation.classify import classify as classify
    from .evaluation.data import EvaluationSettings as EvaluationSettings
    from .evaluation.evaluate import evaluate as evaluate
    from .models.conversion import convert_model as convert_model
    from .models.conversion import convert_model_and_processor as convert_model_and_processor
    from .models.towers import create_model_and_processor as create_model_and_processor
    from .publishing.card.facts import CardDetails as CardDetails
    from .publishing.export import export as export
    from .publishing.hub import HubTarget as HubTarget
    from .publishing.publish import publish as publish
    from .publishing.staging import PublishOptions as PublishOptions
    from .training.arguments import HFClipTrainingArguments as HFClipTrainingArguments
    from .training.contrastive import HFClipTrainer as HFClipTrainer

# Names whose modules bring the Trainer, datasets or torchvision along: loaded when first asked for.
_LATER = {
    "CardDetails": ".publishing.card.facts",
    "EmbedOptions": ".embeddings.options",
    "EvaluationSettings": ".evaluation.data",
    "HFClipCollator": ".data.collator",
    "HFClipTrainer": ".training.contrastive",
    "HFClipTrainingArguments": ".training.arguments",
    "HubTarget": ".publishing.hub",
    "PublishOptions": ".publishing.staging",
    "analyze": ".analysis.analyze",
    "classify": ".evaluation.classify",
    "convert_model": ".models.conversion",
    "convert_model_and_processor": ".models.conversion",
    "create_model_and_processor": ".models.towers",
    "embed": ".embeddings.embed",
    "evaluate": ".evaluation.evaluate",
    "export": ".publishing.export",
    "open_source": ".data.sources",
    "publish": ".publishing.publish",
}

AutoConfig.register("hf_clip", HFClipConfig)
# A folder with one tower says so in its `architectures`.
AutoModel.register(HFClipConfig, (HFClipModel, HFClipTextModelWithProjection, HFClipVisionModelWithProjection))
AutoModelForZeroShotImageClassification.register(HFClipConfig, HFClipModel)
AutoProcessor.register(HFClipConfig, HFClipProcessor)


if not TYPE_CHECKING:  # to which any name would then be one of ours

    def __getattr__(name: str) -> object:
        if name in _LATER:
            return getattr(importlib.import_module(_LATER[name], __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATER})


__all__ = [
    "CardDetails",
    "EmbedOptions",
    "EvaluationSettings",
    "HFClipCollator",
    "HFClipConfig",
    "HFClipModel",
    "HFClipOutput",
    "HFClipProcessor",
    "HFClipTextModelWithProjection",
    "HFClipTrainer",
    "HFClipTrainingArguments",
    "HFClipVisionModelWithProjection",
    "HubTarget",
    "Loss",
    "PublishOptions",
    "analyze",
    "classify",
    "convert_model",
    "convert_model_and_processor",
    "create_model_and_processor",
    "embed",
    "evaluate",
    "export",
    "open_source",
    "publish",
]
