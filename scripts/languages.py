"""Turns the demo's English model into one for the fourteen languages of the `emoji` package, and measures it in each.

    pip install -e ".[demo,eval]"
    python scripts/languages.py --output languages

Nothing is downloaded. The image tower stays as it is; the text tower learns to read. MiniLM's vocabulary gets the
words and pieces of the names in the other languages, each of which begins as the mean of the English pieces that it
stands for, found by word alignment (IBM's Model 1). Then all of the text tower learns by CLIP's loss.

The figures are of concepts that had no picture in training, and no name in any language.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import torch
from emoji import LANGUAGES
from transformers import PreTrainedTokenizerBase, set_seed

from hf_clip import HFClipModel, HFClipProcessor, HFClipTrainer, HFClipTrainingArguments
from hf_clip.cli.demo import VISION_MODEL
from hf_clip.cli.main import main as hf_clip_command
from hf_clip.core.errors import InputError
from hf_clip.data.augmentation import Augmentation
from hf_clip.data.openmoji import ATTRIBUTION, write_openmoji
from hf_clip.data.sources import Source, open_source
from hf_clip.evaluation.charts import draw_by_language
from hf_clip.evaluation.outcome import Outcome
from hf_clip.evaluation.tasks.languages import evaluate_languages
from hf_clip.evaluation.tasks.task import Protocol
from hf_clip.models.towers import open_model_and_processor
from hf_clip.training.data_sets import Drawing, training_pairs
from hf_clip.training.facts import Origin
from hf_clip.training.run import train

KS = (1, 5, 10)
PIECES = 22_000  # that are learned from the names; most of them whole words
EPOCHS = 5
TEXT_RATE = 1e-4
ENGLISH, ALIGNED, TRAINED = "English", "aligned", "multilingual"


def run(output: Path, english: Path | None, epochs: float, seed: int) -> str:
    """Writes `data`, `model`, `results.json`, `table.md` and `recall.png`; the tables are what it returns."""
    if english is None:
        english = output / "english" / "model"
        if hf_clip_command(["demo", "--output_dir", str(english.parent), "--seed", str(seed)]):
            raise InputError("the English model could not be trained: give one with --english")
    model, processor = open_model_and_processor(str(english))
    write_openmoji(output / "data", seed=seed, language=LANGUAGES)
    unseen = {name: open_source(output / "data" / "unseen", caption_column=f"captions.{name}") for name in LANGUAGES}
    outcomes = {ENGLISH: evaluate_languages(model, processor, unseen, Protocol(ks=KS))}

    set_seed(seed)
    source = all_names(open_source(output / "data" / "train", caption_column="captions.en"))
    read_languages(model, processor, source.rows["captions"])
    outcomes[ALIGNED] = evaluate_languages(model, processor, unseen, Protocol(ks=KS))
    args = recipe(output, epochs, seed)
    trainer = HFClipTrainer(
        model,
        args,
        train_dataset=training_pairs([source], processor, args, Drawing(Augmentation(crop_scale=1))),
        eval_dataset=unseen["en"],
        processing_class=processor,
        origin=Origin(
            VISION_MODEL,
            "sentence-transformers/all-MiniLM-L6-v2",
            data=f"OpenMoji pictures with the names of the emoji package in {len(LANGUAGES)} languages",
            eval_data="OpenMoji pictures of concepts that training never saw, with their English names",
            credit=ATTRIBUTION,
            pictures_may_be_shown=True,
        ),
    )
    train(trainer)
    outcomes[TRAINED] = evaluate_languages(model, processor, unseen, Protocol(ks=KS))
    return write_results(outcomes, output)


# ---- data ---------------------------------------------------------------------------------------------------------


def all_names(source: Source) -> Source:
    """The same pictures, a picture's names in all languages being its captions: an epoch draws one of them."""
    rows = source.rows.map(lambda row: {"names": flat(row["captions"])})
    return replace(source, rows=rows, caption_column="names")


def flat(by_language: dict[str, list[str]]) -> list[str]:
    return [name for names in by_language.values() for name in names]


def translations(captions: list[dict[str, list[str]]]) -> list[tuple[str, str]]:
    """Pairs of a name in another language and the English one of the same picture."""
    return [
        (name, by_language["en"][0])
        for by_language in captions
        for language, names in by_language.items()
        for name in names
        if language != "en" and by_language["en"]
    ]


# ---- a text tower that reads them ---------------------------------------------------------------------------------


def read_languages(model: HFClipModel, processor: HFClipProcessor, captions: list[dict[str, list[str]]]) -> None:
    """Gives the text tower the pieces of the names, each with the embedding of what it translates."""
    english, pairs = processor.tokenizer, translations(captions)
    processor.tokenizer = tokenizer = with_pieces(english, [name for of_all in captions for name in flat(of_all)])
    shares = alignment([(pieces(name, tokenizer), pieces(meaning, english)) for name, meaning in pairs])
    known = {piece for of_all in captions for name in of_all["en"] for piece in pieces(name, tokenizer)}
    table = model.text_model.get_input_embeddings().weight.detach().clone()
    new = model.text_model.resize_token_embeddings(len(tokenizer), mean_resizing=False).weight.data
    new[len(table) :] = table.mean(0)
    for piece, of_piece in shares.items():
        if piece not in known:  # what English names are made of stays as it is
            new[piece] = torch.tensor(list(of_piece.values())) @ table[list(of_piece)]


def with_pieces(tokenizer: PreTrainedTokenizerBase, names: list[str]) -> PreTrainedTokenizerBase:
    """The same WordPiece tokenizer with more pieces, behind those that it has."""
    vocabulary, normal = tokenizer.get_vocab(), tokenizer.backend_tokenizer.normalizer.normalize_str
    # Given beforehand: numbered as they are met, in no order, they would make every run's ties and pieces others.
    inner = sorted({f"##{character}" for name in names for character in normal(name)})
    learned = tokenizer.train_new_from_iterator(
        names, vocab_size=PIECES, new_special_tokens=inner, show_progress=False
    ).get_vocab()
    new = [piece for piece in sorted(learned, key=learned.get) if piece not in vocabulary]
    vocabulary |= {piece: len(vocabulary) + place for place, piece in enumerate(new)}
    return type(tokenizer)(vocab=vocabulary, model_max_length=tokenizer.model_max_length)


def alignment(pairs: list[tuple[list[int], list[int]]], rounds: int = 8) -> dict[int, dict[int, float]]:
    """Of every piece of the names, what it means: p(English piece | piece), by expectation maximisation.

    IBM's Model 1 (Brown et al. 1993, https://aclanthology.org/J93-2003, §4.1) without its empty word.

    Args:
        pairs: the pieces of a name and those of its English translation.
    """
    shares: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(lambda: 1.0))
    for _ in range(rounds):
        counts: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
        for name, translation in pairs:
            for meant in translation:
                total = sum(shares[piece][meant] for piece in name)
                for piece in name:
                    counts[piece][meant] += shares[piece][meant] / total
        sums = {piece: sum(of_piece.values()) for piece, of_piece in counts.items()}
        shares = {
            piece: {meant: n / sums[piece] for meant, n in of_piece.items()} for piece, of_piece in counts.items()
        }
    return shares


def pieces(name: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return tokenizer(name, add_special_tokens=False)["input_ids"]


# ---- training -----------------------------------------------------------------------------------------------------


def recipe(output: Path, epochs: float, seed: int) -> HFClipTrainingArguments:
    return HFClipTrainingArguments(
        output_dir=str(output / "model"),
        seed=seed,
        num_train_epochs=epochs,
        per_device_train_batch_size=128,
        text_learning_rate=TEXT_RATE,
        head_learning_rate=3e-5,
        freeze_vision=True,
        cache_frozen_features=True,
        feature_cache_dir=str(output / "features"),
        save_strategy="no",
    )


# ---- results ------------------------------------------------------------------------------------------------------


def write_results(outcomes: dict[str, dict[str, Outcome]], output: Path) -> str:
    """The two tables, as they also stand in `table.md`."""
    metrics = {
        model: {language: outcome.metrics for language, outcome in of_model.items()}
        for model, of_model in outcomes.items()
    }
    tables = "\n\n".join([table_of_languages(metrics), table_of_two(metrics)])
    (output / "results.json").write_text(json.dumps(metrics, indent=2), encoding="utf-8")
    (output / "table.md").write_text(tables + "\n", encoding="utf-8")
    recalls = {model: figures(of_model, "recall@10") for model, of_model in metrics.items()}
    draw_by_language(recalls, figures(metrics[ENGLISH], "chance@10"), output / "recall.png", 10)
    return tables


def figures(of_model: dict[str, dict[str, float]], name: str) -> dict[str, float]:
    """By language."""
    return {language: metrics[f"image_retrieval_{name}"] for language, metrics in of_model.items()}


def table_of_languages(metrics: dict[str, dict[str, dict[str, float]]]) -> str:
    columns = [*(figures(of_model, "recall@10") for of_model in metrics.values())]
    columns.append(figures(metrics[ENGLISH], "chance@10"))
    rows = [[language, *(column[language] for column in columns)] for language in LANGUAGES]
    means = [sum(column.values()) / len(column) for column in columns]
    return markdown(["text → image recall@10", *metrics, "chance"], [*rows, ["mean", *means]])


def table_of_two(metrics: dict[str, dict[str, dict[str, float]]]) -> str:
    """English and Chinese, at each k."""
    rows = []
    for language in ("en", "zh"):
        for k in KS:
            recalls = [figures(metrics[model], f"recall@{k}")[language] for model in (ENGLISH, TRAINED)]
            rows.append([f"{language}, recall@{k}", *recalls, figures(metrics[ENGLISH], f"chance@{k}")[language]])
    return markdown(["text → image", ENGLISH, TRAINED, "chance"], rows)


def markdown(header: list[str], rows: list[list]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    lines += [[name, *(f"{figure:.3f}" for figure in figures_of_row)] for name, *figures_of_row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--english", type=Path, help="the demo's model; default: it is trained first")
    parser.add_argument("--epochs", type=float, default=EPOCHS, help="an epoch draws one name of each picture")
    parser.add_argument("--seed", type=int, default=0, help="of the held-out tenth, which must be the demo's")
    settings = parser.parse_args(arguments)
    start = time.monotonic()
    try:
        if settings.output.exists() and (not settings.output.is_dir() or any(settings.output.iterdir())):
            raise InputError(f"{settings.output} already exists: give another --output, or remove it")
        tables = run(settings.output, settings.english, settings.epochs, settings.seed)
    except InputError as error:
        sys.exit(f"languages.py: {error}")
    print(f"{tables}\n\ntook {time.monotonic() - start:.0f} s. {ATTRIBUTION}")


if __name__ == "__main__":
    main()
