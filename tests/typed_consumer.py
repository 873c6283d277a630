"""Uses every public name of hf_clip, as somebody with a strict type checker does: read by mypy alone, in
`test_types.py`."""

from collections.abc import Iterator
from pathlib import Path
from typing import assert_type

from PIL import Image
from transformers import CLIPModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

import hf_clip
from hf_clip import HFClipCollator, HFClipModel, HFClipProcessor, HFClipTrainer, HFClipTrainingArguments

TOWERS = hf_clip.HFClipVisionModelWithProjection, hf_clip.HFClipTextModelWithProjection
LOSS = hf_clip.Loss("distance", lambda images, texts, *_: (images - texts).square().sum(), label="squared distance")
OPTIONS = hf_clip.EmbedOptions(batch_size=8, progress=False)


def train(images: Path) -> hf_clip.HFClipConfig:
    model, processor = hf_clip.create_model_and_processor("microsoft/resnet-50", "roberta-base", projection_dim=256)
    args = HFClipTrainingArguments("my_clip", num_train_epochs=5)
    source = hf_clip.open_source(images, caption_column="title")
    assert_type(source.captions(0), list[str])
    trainer = HFClipTrainer(model, args, train_dataset=source, data_collator=HFClipCollator(processor), loss=LOSS)
    trainer.train()
    return model.config


def open_saved(folder: str) -> Iterator[HFClipModel]:
    assert_type(HFClipProcessor.from_pretrained(folder), HFClipProcessor)
    assert_type(TOWERS[1].from_pretrained(folder), hf_clip.HFClipTextModelWithProjection)
    model = HFClipModel.from_pretrained(folder)
    assert_type(model, HFClipModel)
    yield model
    yield hf_clip.convert_model_and_processor("openai/clip-vit-base-patch32")[0]
    yield hf_clip.convert_model(CLIPModel.from_pretrained("openai/clip-vit-base-patch32"))
    hf_clip.no_such_name  # type: ignore[attr-defined]  # noqa: B018 – which a strict checker asks for only where it is needed


def use(model: HFClipModel, processor: HFClipProcessor, image: Image.Image) -> hf_clip.HFClipOutput:
    inputs = processor(images=[image], text=["a cat", "a dog"], return_tensors="pt")
    assert_type(model.get_image_features(inputs["pixel_values"]), BaseModelOutputWithPooling)
    best = [answer.label for answer in hf_clip.classify((model, processor), image, ["a cat", "a dog"])]
    output: hf_clip.HFClipOutput = model(**inputs)
    print(best, output.logits_per_image)
    return output


def measure_and_publish(folder: Path) -> None:
    embeddings = hf_clip.embed(folder, "images", options=OPTIONS)
    print(len(embeddings.image_embeds), hf_clip.embed(folder, "images", "embeddings"))
    settings = hf_clip.EvaluationSettings(tasks=["retrieval"])
    results = hf_clip.evaluate(folder, "images", settings, options=OPTIONS)
    hf_clip.evaluate([folder, folder / "other"], "images")
    print(results.to_json(), hf_clip.analyze(folder, "images", ["dark / bright"]), hf_clip.export(folder))
    details = hf_clip.CardDetails("user/my-clip", license="apache-2.0")
    where = hf_clip.HubTarget("user/my-clip", private=True)
    written = hf_clip.publish(folder, where, hf_clip.PublishOptions(details), dry_run=True)
    assert_type(written, Path)
    hf_clip.publish(folder, where, hf_clip.PublishOptions(evaluations=folder / "figures"))


def publish_or_look(folder: Path, dry_run: bool) -> object:
    return hf_clip.publish(folder, "user/my-clip", dry_run=dry_run)
