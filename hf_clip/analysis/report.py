"""The folder of an analysis: analysis.json, scores.csv, mislabelled.csv, report.md, pictures/."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from pathlib import Path
from typing import TypeAlias, TypedDict

from ..core.atomic import replace_file, write_text
from ..core.json_files import json_text
from ..core.temporary import temporary_folder
from ..evaluation.markdown import escaped, table
from ..evaluation.outcome import Outcome
from ..evaluation.report import PAGE, PICTURES, can_draw, place_pictures, remove_pictures, written_pictures
from .measures import Rows
from .records import AnalysisResults, Outlier, PairScores, Row, ScoredRow, Suspect

RESULTS, SCORES, SUSPECTS = "analysis.json", "scores.csv", "mislabelled.csv"
EXTREMES = 6  # pictures named at either end of a word pair
PAIR_HEADER = ["word pair", "mean", "above ½"]

Metrics: TypeAlias = Mapping[str, float]
Cell: TypeAlias = object  # of a table: a text or a number


class _Named(TypedDict):
    row: int
    picture: str | None


@dataclass
class AnalysisReport:
    """What a model says of one data set.

    Args:
        model, data: their names.
        pairs: of opposite prompts, in the order of the outcome.
        outcome: of `measure_all`.
        rows: what is analysed, as a reader calls it.
        top: how many rows are listed of each kind.
        pictures: file names, as `write` has drawn them; undrawn: why there are none, if it would have.
    """

    model: str
    data: str
    pairs: Sequence[tuple[str, str]]
    outcome: Outcome
    rows: Rows
    top: int = 20
    pictures: list[str] = field(default_factory=list)
    undrawn: str = ""

    def write(self, folder: Path) -> AnalysisResults:
        """Writes every file, each whole or not at all, and removes what only an earlier report in the folder has.

        Returns:
            What `analysis.json` holds.
        """
        earlier, before = (folder / RESULTS).is_file(), written_pictures(folder / RESULTS)
        with temporary_folder() as aside:
            if self.rows.source and can_draw():
                self.pictures = self.draw(aside)
            elif self.rows.source:
                self.undrawn = "No pictures were drawn: matplotlib is not installed (pip install matplotlib)."
            results = self.results()
            text = json_text(results.to_json())
            place_pictures(results.pictures, aside, folder / PICTURES)
        replace_file(folder / SCORES, self._write_scores)
        if "mislabelled" in self.outcome.details:
            replace_file(folder / SUSPECTS, self._write_suspects)
        elif earlier:
            (folder / SUSPECTS).unlink(missing_ok=True)
        write_text(folder / PAGE, page(results))
        write_text(folder / RESULTS, text)
        remove_pictures(before - set(results.pictures), folder / PICTURES)
        return results

    def draw(self, folder: Path) -> list[str]:
        """The pictures there are; their names."""
        from . import pictures as pictures

        outcome, rows = self.outcome, self.rows
        drawn = []
        if "clip_score" in outcome.details:
            pictures.draw_clip_scores(outcome, folder / "clip_scores.png")
            drawn.append("clip_scores.png")
        if self.pairs:
            pictures.draw_word_pairs(outcome, rows, self.pairs, folder / "word_pairs.png")
            drawn.append("word_pairs.png")
        if outcome.metrics.get("estimated_mislabelled"):
            pictures.draw_mislabelled(outcome, rows, folder / "mislabelled.png")
            drawn.append("mislabelled.png")
        if len(outcome.details["outliers"]):
            pictures.draw_outliers(outcome, rows, folder / "outliers.png")
            drawn.append("outliers.png")
        return drawn

    def results(self) -> AnalysisResults:
        """What `analysis.json` holds."""
        details = self.outcome.details
        listed = min(self.top, len(details.get("mislabelled", ())))
        return AnalysisResults(
            model=self.model,
            data=self.data,
            metrics=self.outcome.metrics,
            word_pairs=[self._pair(number, pair) for number, pair in enumerate(self.pairs)],
            mislabelled=[self._suspect(place) for place in range(listed)],
            outliers=[
                Outlier(**self._named(image), neighbour_cosine=float(details["neighbour_cosine"][image]))
                for image in details["outliers"][: self.top]
            ],
            protocol=self.outcome.protocol,
            notes=[*self.outcome.notes, *([self.undrawn] if self.undrawn else [])],
            pictures=self.pictures,
            skipped=list(self.rows.embeddings.skipped),
        )

    def _pair(self, number: int, pair: tuple[str, str]) -> PairScores:
        mean, above_half = (self.outcome.metrics[f"word_pair_{number + 1}_{of}"] for of in ("mean", "above_half"))
        highest, lowest = (
            self._extremes(number, which) for which in (slice(EXTREMES), slice(None, -EXTREMES - 1, -1))
        )
        return PairScores(pair, mean, above_half, highest, lowest)

    def _named(self, image: int) -> _Named:
        return {"row": self.rows.row(image), "picture": self.rows.name(image) if self.rows.source else None}

    def _extremes(self, number: int, which: slice) -> list[ScoredRow]:
        details = self.outcome.details
        images, scores = details["word_pair_order"][which, number], details["word_pairs"][:, number]
        return [ScoredRow(**self._named(image), score=float(scores[image])) for image in images]

    def _suspect(self, place: int) -> Suspect:
        """One of the pairs that are likely wrong, the most suspect first."""
        details, has_texts = self.outcome.details, self.rows.source is not None
        caption, better = int(details["mislabelled"][place]), int(details["best_caption"][place])
        return Suspect(
            **self._named(int(self.rows.embeddings.text_to_image[caption])),
            clip_score=float(details["clip_score"][caption]),
            suspicion=float(details["suspicion"][caption]),
            caption=self.rows.caption(caption) if has_texts else None,
            best_caption=self.rows.caption(better) if has_texts else None,
        )

    def _write_scores(self, file: Path) -> None:
        names = ["row", "picture", "caption", "clip_score", "suspicion", "neighbour_cosine"]
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(names + [" / ".join(pair) for pair in self.pairs])
            writer.writerows(self._score_rows())

    def _score_rows(self) -> Iterator[list[Cell]]:
        """A row a caption; a picture without one has a row too."""
        details, rows = self.outcome.details, self.rows
        pictures = len(rows.embeddings.image_embeds)
        caption = 0
        for image, count in enumerate(rows.embeddings.text_to_image.bincount(minlength=pictures).tolist()):
            of_picture = [details["neighbour_cosine"][image], *(details["word_pairs"][image] if self.pairs else ())]
            for place, text in enumerate(rows.captions(image) or [""] * max(count, 1), start=caption):
                own = [details[name][place] if count else nan for name in ("clip_score", "suspicion")]
                values = ("" if isnan(value) else f"{value:.6f}" for value in [*own, *of_picture])
                yield [rows.row(image), rows.name(image), text, *values]
            caption += count

    def _write_suspects(self, file: Path) -> None:
        names = ["row", "picture", "clip_score", "suspicion", "caption", "best_caption"]
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, names)
            writer.writeheader()
            suspects = range(len(self.outcome.details["mislabelled"]))
            writer.writerows(self._suspect(place).to_json() for place in suspects)


# ---- what a reader is told ----------------------------------------------------------------------------------------


def counts_line(metrics: Metrics) -> str:
    pictures = f"{metrics['images']} pictures (duplicates: {metrics['duplicate_images']}"
    return f"{pictures}, skipped: {metrics['skipped_images']}), {metrics['captions']} captions"


def agreement_rows(metrics: Metrics) -> list[list[Cell]]:
    """Rows of a table: the CLIPScore's figures."""
    quantiles: list[list[Cell]] = [
        [f"{int(name[-2:])} %", metrics[name]] for name in metrics if name.startswith("clip_score_q")
    ]
    rows: list[list[Cell]] = [
        ["mean", metrics["clip_score_mean"]],
        ["deviation", metrics["clip_score_std"]],
        *quantiles,
    ]
    if "mismatched_clip_score_mean" in metrics:
        rows.append(["mean with another's caption", metrics["mismatched_clip_score_mean"]])
    return rows


def pair_rows(results: AnalysisResults) -> list[list[Cell]]:
    """Rows of a table below `PAIR_HEADER`."""
    return [[" / ".join(scores.pair), scores.mean, scores.above_half] for scores in results.word_pairs]


def estimate_line(metrics: Metrics) -> str:
    share = 100 * metrics["estimated_mislabelled_share"]
    counts = f"{metrics['estimated_mislabelled']} of {metrics['captions']} captions ({share:.1f} %)"
    return f"About {counts} are wrong, or the model does not understand them."


# ---- the page -----------------------------------------------------------------------------------------------------


def page(results: AnalysisResults) -> str:
    """What `analysis.json` holds as Markdown."""
    metrics = results.metrics
    parts = [f"# {escaped(results.data)} as the model {escaped(results.model)} sees it"]
    parts.append(counts_line(metrics) + ".")
    if "clip_score_mean" in metrics:
        parts += ["## Agreement of pictures and captions", table(["CLIPScore", ""], agreement_rows(metrics))]
        parts += _shown(results, "clip_scores.png")
    if results.word_pairs:
        parts += ["## Word pairs", table(PAIR_HEADER, _escaped_rows(pair_rows(results)))]
        parts += [*_shown(results, "word_pairs.png"), _extremes_list(results)]
    if "estimated_mislabelled" in metrics:
        parts += ["## Likely mislabelled", f"{estimate_line(metrics)} All of them: [{SUSPECTS}]({SUSPECTS})."]
        if results.mislabelled:
            parts += [_listing(results.mislabelled), *_shown(results, "mislabelled.png")]
    if results.outliers:
        parts += ["## Outliers", "Pictures far from all others, by the mean cosine to those nearest."]
        parts += [_listing(results.outliers), *_shown(results, "outliers.png")]
    protocol = "\n".join(f"- {name.replace('_', ' ')}: {how}" for name, how in results.protocol.items())
    parts += ["## How it was measured", protocol, *map(escaped, results.notes)]
    if results.skipped:
        skipped: list[list[Cell]] = [[row + 1, name, reason] for row, name, reason in results.skipped]
        header = ["row", "picture", "why"]
        parts += ["## Pictures that could not be read", table(header, _escaped_rows(skipped), left=range(3))]
    return "\n\n".join(parts) + "\n"


def _shown(results: AnalysisResults, picture: str) -> list[str]:
    return [f"![{picture}]({PICTURES}/{picture})"] if picture in results.pictures else []


def _extremes_list(results: AnalysisResults) -> str:
    return "\n".join(
        f"- {escaped(scores.pair[side])}: " + ", ".join(_label(entry, side) for entry in end)
        for scores in results.word_pairs
        for side, end in enumerate((scores.highest, scores.lowest))
    )


def _label(entry: ScoredRow, side: int) -> str:
    """A picture with the probability of the first prompt of a pair (side 0) or of the second."""
    name = "" if entry.picture is None else f" {escaped(entry.picture)}"
    return f"row {entry.row}{name} ({abs(side - entry.score):.3f})"


def _listing(entries: Sequence[Row]) -> str:
    shown = [entry.to_json() for entry in entries]
    header = [name.replace("_", " ") for name in shown[0]]
    left = [0, *(column for column, value in enumerate(shown[0].values()) if isinstance(value, str))]
    return table(header, _escaped_rows([list(entry.values()) for entry in shown]), left)


def _escaped_rows(rows: Sequence[Sequence[Cell]]) -> list[list[Cell]]:
    return [[escaped(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
