"""The card's tables of figures: beside chance, by language, and told apart."""

import re

import pytest
from cards import RETRIEVAL, ZERO_SHOT, bare_folder, card, figure, put, results, rows, section
from huggingface_hub import ModelCard


@pytest.fixture
def folder(tmp_path, processor):
    return bare_folder(tmp_path / "model", processor)


def test_figures_stand_beside_chance_and_what_is_possible(folder):
    text = card(folder, evaluation=results(RETRIEVAL + ZERO_SHOT))
    assert rows(section(text, "Retrieval")) == [
        ["", "value", "95 % interval", "chance", "best possible"],
        ["text → image, recall@1", "0.020", "0.000 to 0.040", "0.005", "1.000"],
        ["text → image, recall@10", "0.550", "0.500 to 0.600", "0.050", "1.000"],
        ["text → image, median rank", "8", "", "", ""],
        ["image → text, recall@1", "0.250", "0.200 to 0.300", "0.005", "0.930"],
        ["image → text, recall@10", "0.340", "0.300 to 0.400", "0.050", "1.000"],
        ["image → text, median rank", "17.5", "", "", ""],
    ]
    said = section(text, "Zero-shot classification")
    assert rows(said) == [
        ["", "value", "95 % interval", "chance"],
        ["top-1 accuracy", "0.600", "0.500 to 0.700", "0.250"],
        ["mean per class recall", "0.410", "0.200 to 0.500", "0.250"],
        ["calibration error", "0.125", "", ""],
    ]
    assert "Data: unseen, all rows, content dddddddd: 80 pictures, 4 classes." in said
    assert "Protocol: templates: “a {c}”, “{c}.”." in said
    assert "Weights: wwwwwwww, float32." in said


def test_languages_share_a_table_and_the_best_and_worst_are_named(folder):
    values, others = {"en": 0.6, "zh": 0.4, "ru": 0.1}, {"high": 0.9, "chance": 0.07}
    figures = [
        figure(f"{way}_retrieval_recall@{k}", value / (11 - k), f"retrieval/{name}", low=value / 20, **others)
        for name, value in values.items()
        for way in ("image", "text")
        for k in (1, 10)
    ]
    text = card(folder, evaluation=results(figures))
    assert rows(section(text, "Retrieval by language"))[1:] == [
        ["en", "10", "0.600 [0.030, 0.900]", "0.070", "0.600 [0.030, 0.900]", "0.070"],
        ["zh", "10", "0.400 [0.020, 0.900]", "0.070", "0.400 [0.020, 0.900]", "0.070"],
        ["ru", "10", "0.100 [0.005, 0.900]", "0.070", "0.100 [0.005, 0.900]", "0.070"],
    ]
    limits = section(text, "Limits and biases")
    assert "Of 3 languages it reads en best and ru worst: text → image recall@10 is 0.600 [0.030" in limits
    assert "ru, text → image, recall@10: 0.100 [0.005, 0.900] cannot be told from chance (0.070)." in limits
    configs = {result.dataset_config: result.metric_args["k"] for result in ModelCard(text).data.eval_results}
    assert configs == {"en": 10, "zh": 10, "ru": 10}


def of_languages(**images: int) -> list[dict]:
    about = {"chance": 0.1, "captions": 7}
    return [
        figure(f"{way}_retrieval_recall@1", 0.5, f"retrieval/{name}", images=count, **about)
        for name, count in images.items()
        for way in ("image", "text")
    ]


def test_languages_of_several_sizes_have_theirs_beside_them(folder):
    said = section(card(folder, evaluation=results(of_languages(en=90, zh=40))), "Retrieval by language")
    assert [row[:4] for row in rows(said)] == [
        ["language", "pictures", "captions", "k"],
        ["en", "90", "7", "1"],
        ["zh", "40", "7", "1"],
    ]
    assert "content dddddddd." in said
    said = section(card(folder, evaluation=results(of_languages(en=90, zh=90))), "Retrieval by language")
    assert rows(said)[0][:2] == ["language", "k"]
    assert "content dddddddd: 90 pictures, 7 captions." in said


@pytest.mark.parametrize(
    ("names", "told"),
    [(("unseen", "unseen"), ("unseen", "unseen (more)")), (("sparrows", "finches"), ("sparrows", "finches"))],
)
def test_two_evaluations_of_a_task_are_told_apart(folder, names, told):
    for place, name in zip(("evaluation", "evaluation/more"), names, strict=True):
        figures = [entry | {"value": 0.5 if place == "evaluation" else 0.25} for entry in RETRIEVAL + ZERO_SHOT]
        put(folder, f"{place}/results.json", results(figures, data={"name": name, "split": "s", "fingerprint": "d"}))
    text = card(folder)
    titles = re.findall(r"^### (.*)", text.partition("## Evaluation")[2], flags=re.MULTILINE)
    assert sorted(title.replace("\\", "") for title in titles) == sorted(
        f"{task} on {name}" for name in told for task in ("Retrieval", "Zero-shot classification")
    )
    limits = section(text, "Limits and biases").strip().splitlines()
    assert len(set(limits)) == len(limits)
    figured = [line.replace("\\", "") for line in limits if "0.500" in line or "median rank" in line]
    assert all(any(name in line for name in told) for line in figured)
    assert figured


def test_charts_of_single_languages_are_the_report_s(folder):
    names = ["recall_retrieval.png", "recall_retrieval_zh_TW.png", "recall_retrieval_zh_TW_2.png"]
    for name in names:
        put(folder, f"evaluation/pictures/{name}", "drawn")
    of_two = [entry | {"task": f"retrieval/{name}"} for name in ("zh-TW", "zh_TW") for entry in RETRIEVAL]
    text = card(folder, evaluation=results(RETRIEVAL + of_two, pictures=names))
    assert re.findall(r"\(evaluation/pictures/(.*?)\)", text) == names[:1]


def test_the_same_evaluation_twice_is_shown_once(folder):
    for place in ("evaluation", "evaluation/copy"):
        put(folder, f"{place}/results.json", results())
    assert re.findall(r"^### (Retrieval.*)", card(folder), flags=re.MULTILINE) == ["Retrieval"]
