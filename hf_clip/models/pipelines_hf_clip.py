"""Images as users hand them in, opened by the one rule of decoding: for the processor and transformers' pipelines."""

from .requirements_hf_clip import TRANSFORMERS  # noqa: F401 – checks the release, before what an older one lacks

# isort: split

import base64
import os

from huggingface_hub import get_session
from PIL import Image
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.image_feature_extraction import ImageFeatureExtractionPipeline
from transformers.pipelines.zero_shot_image_classification import ZeroShotImageClassificationPipeline

from .decoding_hf_clip import decode_image, to_rgb


def open_image(image, timeout: float | None = None):
    """8-bit sRGB of an image that Pillow opened, a file, a web address or base64; anything else as it is."""
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if not isinstance(image, str):
        return image
    if image.startswith(("http://", "https://")):
        answer = get_session().get(image, timeout=timeout, follow_redirects=True)
        answer.raise_for_status()
        return decode_image(answer.content)
    if os.path.isfile(image):
        with open(image, "rb") as file:
            return decode_image(file.read())
    try:
        return decode_image(base64.b64decode(image.rpartition(",")[2]))
    except Exception as error:
        raise ValueError(f"{image[:80]!r} is neither a file, nor an address, nor an image in base64") from error


# transformers' own drop transparency, color profile and depth before the processor sees the image.


class HFClipZeroShotImageClassificationPipeline(ZeroShotImageClassificationPipeline):
    def preprocess(self, image, **parameters):  # type: ignore[override]
        return super().preprocess(_opened_for(self.model, image, parameters), **parameters)


class HFClipImageFeatureExtractionPipeline(ImageFeatureExtractionPipeline):
    def preprocess(self, image, **parameters):  # type: ignore[override]
        return super().preprocess(_opened_for(self.model, image, parameters), **parameters)


def _opened_for(model, image, parameters):
    return open_image(image, parameters.get("timeout")) if model.config.model_type == "hf_clip" else image


def register_pipelines() -> None:
    """Has transformers build these; those of other models work as before.

    `custom_pipelines` in the configuration would ask for `trust_remote_code` where hf_clip is installed, and refuse a
    model that is open already. `register_pipeline` would warn that the task exists.
    """
    for task, pipeline in (
        ("zero-shot-image-classification", HFClipZeroShotImageClassificationPipeline),
        ("image-feature-extraction", HFClipImageFeatureExtractionPipeline),
    ):
        if task in PIPELINE_REGISTRY.supported_tasks:
            PIPELINE_REGISTRY.supported_tasks[task]["impl"] = pipeline
