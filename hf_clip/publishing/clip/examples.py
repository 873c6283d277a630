"""The examples of a CLIP's card, as a stranger would write them."""

from collections.abc import Sequence

from ..card.facts import CardDetails, Example
from ..card.usage import ONNX, literal
from ..saved_model import SavedModel


def examples(
    saved: SavedModel, details: CardDetails, *, fixed_length: int | None = None, sigmoid: bool = False
) -> list[Example]:
    """The examples that suit what a folder holds.

    Args:
        fixed_length: tokens that every text is padded to, where the text tower wants that.
        sigmoid: the model answers for each label alone, as one of the sigmoid loss does.
    """
    name, imports, picture = literal(details.name), *_picture(details)
    labels = _list(details.example_labels or _neutral_labels(details))
    score = "sigmoid()[0]" if sigmoid else "softmax(dim=1)[0]"
    found = [
        Example("transformers", _with_transformers(name, imports, picture, labels, score)),
        Example("The pipeline of transformers", _with_pipeline(name, imports, picture, labels, fixed_length)),
    ]
    if base := saved.base:
        found.append(Example("PEFT", _with_peft(name, literal(base), imports, picture, labels, score)))
    else:
        found.append(Example("hf_clip", _with_hf_clip(name, imports, picture, labels)))
    if saved.has_sentence_transformers:
        found.append(Example("sentence-transformers", _with_sentence_transformers(name, imports, picture, labels)))
    if saved.has_onnx_example:
        found.append(Example("onnxruntime, without torch", _with_onnx(name, imports, picture, labels)))
    return found


def _neutral_labels(details: CardDetails) -> list[str]:
    return ["a photo", "a drawing"] if details.example_picture else ["red", "green", "blue"]


def _picture(details: CardDetails) -> tuple[str, str]:
    """(imports, the expression of a picture)."""
    if not details.example_picture:
        return "from PIL import Image", 'Image.new("RGB", (224, 224), "red")'
    file = f"hf_hub_download({literal(details.name)}, {literal(details.example_picture)})"
    return "from huggingface_hub import hf_hub_download\nfrom PIL import Image", f"Image.open({file})"


def _list(texts: Sequence[str]) -> str:
    """On one line, where they fit."""
    line = ", ".join(map(literal, texts))
    return f"[{line}]" if len(line) < 80 else "".join(["[\n", *(f"    {literal(text)},\n" for text in texts), "]"])


def _with_transformers(name: str, imports: str, picture: str, labels: str, score: str) -> str:
    return f"""import torch
{imports}
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained({name}, trust_remote_code=True)
{_answered(name, picture, labels, score)}"""


def _with_peft(name: str, base: str, imports: str, picture: str, labels: str, score: str) -> str:
    return f"""import torch
from peft import PeftModel
{imports}
from transformers import AutoModel, AutoProcessor

base = AutoModel.from_pretrained({base}, trust_remote_code=True)
model = PeftModel.from_pretrained(base, {name})
{_answered(name, picture, labels, score)}"""


def _answered(name: str, picture: str, labels: str, score: str) -> str:
    return f"""processor = AutoProcessor.from_pretrained({name}, trust_remote_code=True)

picture = {picture}
labels = {labels}
inputs = processor(images=picture, text=labels, return_tensors="pt")
with torch.inference_mode():
    output = model(**inputs)
for label, probability in zip(labels, output.logits_per_image.{score}):
    print(f"{{label}}: {{probability:.3f}}")
"""


def _with_pipeline(name: str, imports: str, picture: str, labels: str, fixed_length: int | None) -> str:
    partial, padded = "", ""
    if fixed_length:
        # The pipeline loses `tokenizer_kwargs` that it is called with (transformers 5.24).
        settings = f'{{"padding": "max_length", "truncation": True, "max_length": {fixed_length}}}'
        partial = "from functools import partial\n\n"
        padded = (
            f"padding = {settings}\nclassify.preprocess = partial(classify.preprocess, tokenizer_kwargs=padding)\n"
        )
    return f"""{partial}{imports}
from transformers import pipeline

classify = pipeline("zero-shot-image-classification", model={name}, trust_remote_code=True)
{padded}
picture = {picture}
labels = {labels}
for answer in classify(picture, candidate_labels=labels, hypothesis_template="{{}}"):
    print(f"{{answer['label']}}: {{answer['score']:.3f}}")
"""


def _with_hf_clip(name: str, imports: str, picture: str, labels: str) -> str:
    return f"""{imports}

from hf_clip import HFClipModel, HFClipProcessor
from hf_clip.embeddings.encode import embed_images, embed_texts

model = HFClipModel.from_pretrained({name})
processor = HFClipProcessor.from_pretrained({name})

pictures = [{picture}]
texts = {labels}
cosines = embed_images(model, processor, pictures) @ embed_texts(model, processor, texts).T
for text, cosine in zip(texts, cosines[0]):
    print(f"{{text}}: {{cosine:.3f}}")
"""


def _with_sentence_transformers(name: str, imports: str, picture: str, labels: str) -> str:
    return f"""{imports}
from sentence_transformers import SentenceTransformer

model = SentenceTransformer({name}, trust_remote_code=True)

pictures = [{picture}]
texts = {labels}
cosines = model.similarity(model.encode(pictures), model.encode(texts))
for text, cosine in zip(texts, cosines[0]):
    print(f"{{text}}: {{cosine:.3f}}")
"""


def _with_onnx(name: str, imports: str, picture: str, labels: str) -> str:
    imports = imports.replace("hf_hub_download", "hf_hub_download, snapshot_download")
    if "snapshot_download" not in imports:
        imports = f"from huggingface_hub import snapshot_download\n{imports}"
    return f"""import runpy
import sys

{imports}

folder = snapshot_download({name}, allow_patterns="onnx/*")
{picture}.save("picture.png")
labels = {labels}
sys.argv = ["example.py", "picture.png", *labels]
runpy.run_path(f"{{folder}}/{ONNX}", run_name="__main__")
"""
