"""The metrics as `evaluate` has them: add batches, compute, combine, save. Nothing is downloaded.

    metrics = evaluate.combine([ImageTextRetrieval(), CLIPScore()])
    for batch in batches:
        metrics.add_batch(predictions=batch.text_embeds, references=batch.image_embeds)
    evaluate.save("results.json", **metrics.compute(ks=(1, 5)))

`ImageTextRetrieval` and `CLIPScore` take pairs of embeddings, `TopKAccuracy` and `MeanPerClassRecall` scores and the
right class: each two combine, and take each other's settings. `MeanAveragePrecision` is for several classes a picture.
"""

import inspect
from collections.abc import Hashable, Iterable, Sequence

import evaluate
import numpy as np
import torch
from datasets import Features, List, Value
from torch import Tensor
from torch.nn.functional import normalize

from ..core.errors import InputError
from .metrics import (
    average_precision,
    check_finite,
    class_ranks,
    clip_score,
    mean_per_class_recall,
    median_rank,
    recall_at_k,
    retrieval_ranks,
)
from .tasks.retrieval import KS

# How far apart unit embeddings of one picture may be: bf16 and another place in the batch leave some 0.01.
_SAME_PICTURE = 0.05


class _Metric(evaluate.Metric):
    """A metric whose description is its docstring."""

    inputs: str
    reference: str
    input_features: Features

    def _info(self) -> evaluate.MetricInfo:
        info = evaluate.MetricInfo(
            description=inspect.getdoc(self),
            inputs_description=self.inputs,
            citation=self.reference,
            features=self.input_features,
        )
        # Arrays, in a quarter of the time and an eighth of the memory of lists. The constructor refuses it for rows,
        # as they may be of unlike length; here those are an error.
        info.format = "numpy"
        return info


# ---- pairs of embeddings ------------------------------------------------------------------------------------------

_PAIR_INPUTS = """
Args:
    predictions: text embeddings, (pairs, dim), of any length.
    references: image embeddings, (pairs, dim), of any length; row i is the picture of text i.
"""


class _PairMetric(_Metric):
    input_features = Features({"predictions": List(Value("float32")), "references": List(Value("float32"))})


class ImageTextRetrieval(_PairMetric):
    """Retrieval by cosine similarity, of pictures by their captions and of captions by their picture.

    Ties count against the model. (Hodosh et al. 2013, https://doi.org/10.1613/jair.3994)
    """

    inputs = f"""{_PAIR_INPUTS}    ks: default: of 1, 5 and 10, those that are no more than the pictures.
    image_ids: (pairs,), numbers or strings, in the order in which the rows were added: rows with the same id are one
        picture, and all their captions are its own. Default: each row is a picture of its own.

Returns:
    image_retrieval_recall@k: the share of captions whose picture is among the k pictures most alike.
    text_retrieval_recall@k: the share of pictures of which one caption or more is among the k captions most alike.
    image_retrieval_median_rank, text_retrieval_median_rank: of the first right one, from 1.
"""
    reference = """@article{hodosh2013framing,
    title = {Framing Image Description as a Ranking Task: Data, Models and Evaluation Metrics},
    author = {Hodosh, Micah and Young, Peter and Hockenmaier, Julia},
    journal = {Journal of Artificial Intelligence Research}, volume = {47}, pages = {853--899}, year = {2013}
}"""

    def _compute(
        self,
        predictions: np.ndarray,
        references: np.ndarray,
        ks: Sequence[int] | None = None,
        image_ids: Iterable[Hashable] | None = None,
    ) -> dict[str, float]:
        text_embeds, image_embeds = _unit_pairs(predictions, references)
        own_row, text_to_image = _pictures(image_ids, image_embeds)
        ks = _checked_ks(ks, KS, len(own_row), f"{len(own_row)} pictures")
        pairs = torch.stack([torch.arange(len(text_embeds)), text_to_image], dim=1)
        image_ranks, text_ranks = retrieval_ranks(text_embeds, image_embeds[own_row], pairs)
        result: dict[str, float] = {}
        for way, ranks in (("image", image_ranks[:, 0]), ("text", text_ranks[:, 0])):
            result |= {f"{way}_retrieval_recall@{k}": recall_at_k(ranks, k) for k in ks}
            result[f"{way}_retrieval_median_rank"] = median_rank(ranks)
        return result


class CLIPScore(_PairMetric):
    """The mean over pairs of 2.5 · max(cos, 0) (Hessel et al. 2021, https://arxiv.org/abs/2104.08718)."""

    inputs = f"""{_PAIR_INPUTS}    ks, image_ids: of `ImageTextRetrieval`; nothing here depends on them.

Returns:
    clip_score: from 0 to 2.5. The paper's has "A photo depicts" before each caption, and another model's scores are
        on another scale.
"""
    reference = """@inproceedings{hessel2021clipscore,
    title = {{CLIPScore}: A Reference-free Evaluation Metric for Image Captioning},
    author = {Hessel, Jack and Holtzman, Ari and Forbes, Maxwell and Le Bras, Ronan and Choi, Yejin},
    booktitle = {Proceedings of EMNLP}, year = {2021}, url = {https://arxiv.org/abs/2104.08718}
}"""

    def _compute(
        self, predictions: np.ndarray, references: np.ndarray, ks: object = None, image_ids: object = None
    ) -> dict[str, float]:
        text_embeds, image_embeds = _unit_pairs(predictions, references)
        return {"clip_score": clip_score(image_embeds, text_embeds).double().mean().item()}


def _unit_pairs(predictions: np.ndarray, references: np.ndarray) -> tuple[Tensor, Tensor]:
    """Text and image embeddings, (pairs, dim), fp32, of unit length."""
    text_embeds, image_embeds = _unit_rows(predictions, "predictions"), _unit_rows(references, "references")
    _check_columns(text_embeds, image_embeds)
    return text_embeds, image_embeds


def _unit_rows(array: np.ndarray, name: str) -> Tensor:
    embeds = _rows(array, name)
    check_finite(embeds, name)
    # Squares of fp32 numbers overflow and vanish in fp32.
    return normalize(embeds.double(), eps=1e-300).float()


def _pictures(image_ids: Iterable[Hashable] | None, image_embeds: Tensor) -> tuple[Tensor, Tensor]:
    """(pictures,), the first row of each picture, and (pairs,), the position among them of each row's picture."""
    rows = torch.arange(len(image_embeds))
    if image_ids is None:
        return rows, rows
    ids = [name.item() if isinstance(name, Tensor) else name for name in image_ids]  # tensors differ by identity
    if len(ids) != len(rows):
        raise InputError(f"{len(ids)} image_ids for {len(rows)} rows: give one for each, in the order of the rows")
    first_of: dict[Hashable, int] = {}
    first = torch.tensor([first_of.setdefault(name, row) for row, name in enumerate(ids)])
    apart = (image_embeds - image_embeds[first]).norm(dim=1) > _SAME_PICTURE
    if apart.any():
        row = int(apart.nonzero()[0])
        raise InputError(
            f"rows {int(first[row])} and {row} have the image_id {ids[row]!r}, but different image embeddings: "
            "give the ids in the order of the rows"
        )
    return first.unique(return_inverse=True)


# ---- scores over classes ------------------------------------------------------------------------------------------

_CLASS_INPUTS = """
Args:
    predictions: scores over the classes, (pictures, classes): logits, cosines or probabilities.
    references: the right class, (pictures,), from 0.
"""


class _ClassMetric(_Metric):
    input_features = Features({"predictions": List(Value("float32")), "references": Value("int64")})


class TopKAccuracy(_ClassMetric):
    """The share of pictures whose class is among the k that score highest; ties count against the model.

    (Russakovsky et al. 2015, https://arxiv.org/abs/1409.0575)
    """

    inputs = f"""{_CLASS_INPUTS}    ks: default: of 1 and 5, those below the number of classes.

Returns:
    acc1, acc5, …: one for each k.
"""
    reference = """@article{russakovsky2015imagenet,
    title = {{ImageNet} Large Scale Visual Recognition Challenge},
    author = {Russakovsky, Olga and Deng, Jia and Su, Hao and Krause, Jonathan and Satheesh, Sanjeev and others},
    journal = {International Journal of Computer Vision}, volume = {115}, pages = {211--252}, year = {2015}
}"""

    def _compute(
        self, predictions: np.ndarray, references: np.ndarray, ks: Sequence[int] | None = None
    ) -> dict[str, float]:
        scores, labels = _scores(predictions, references)
        classes = scores.shape[1]
        ks = _checked_ks(ks, (1, 5), classes - 1, f"{classes} classes")
        ranks = class_ranks(scores, labels, tie=0)
        return {f"acc{k}": recall_at_k(ranks, k) for k in ks}


class MeanPerClassRecall(_ClassMetric):
    """The mean over classes with pictures of the share of their pictures that were right; ties count against.

    Also known as balanced accuracy. (Brodersen et al. 2010, https://doi.org/10.1109/ICPR.2010.764)
    """

    inputs = f"""{_CLASS_INPUTS}    ks: of `TopKAccuracy`; nothing here depends on it.

Returns:
    mean_per_class_recall: from 0 to 1.
"""
    reference = """@inproceedings{brodersen2010balanced,
    title = {The Balanced Accuracy and Its Posterior Distribution},
    author = {Brodersen, Kay H. and Ong, Cheng Soon and Stephan, Klaas E. and Buhmann, Joachim M.},
    booktitle = {International Conference on Pattern Recognition}, pages = {3121--3124}, year = {2010}
}"""

    def _compute(self, predictions: np.ndarray, references: np.ndarray, ks: object = None) -> dict[str, float]:
        scores, labels = _scores(predictions, references)
        return {"mean_per_class_recall": mean_per_class_recall(class_ranks(scores, labels, tie=0) == 0, labels)}


class MeanAveragePrecision(_Metric):
    """The mean over classes with pictures of their average precision; ties count against the model.

    For pictures of several classes or none. (Manning et al. 2008, §8.4, https://nlp.stanford.edu/IR-book)
    """

    inputs = """
Args:
    predictions: scores over the classes, (pictures, classes): logits, cosines or probabilities.
    references: (pictures, classes), 1 where the picture is of the class, else 0.

Returns:
    mean_average_precision: from 0 to 1.
    classes_without_pictures: how many classes have no part in it.
"""
    reference = """@book{manning2008introduction,
    title = {Introduction to Information Retrieval},
    author = {Manning, Christopher D. and Raghavan, Prabhakar and Sch{\\"u}tze, Hinrich},
    publisher = {Cambridge University Press}, year = {2008}
}"""
    input_features = Features({"predictions": List(Value("float32")), "references": List(Value("int64"))})

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        scores, belongs = _rows(predictions, "predictions"), _rows(references, "references")
        check_finite(scores, "predictions")
        _check_columns(scores, belongs)
        strange = ((belongs != 0) & (belongs != 1)).any(dim=1)
        if strange.any():
            raise InputError(f"references: row {int(strange.nonzero()[0])} has more than 0 and 1: give one a class")
        with_pictures = belongs.any(dim=0).nonzero().flatten().tolist()
        if not with_pictures:
            raise InputError("references: no picture is of any class, so no average precision is defined")
        precisions = [average_precision(scores[:, name], belongs[:, name] == 1, tie=0) for name in with_pictures]
        return {
            "mean_average_precision": sum(precisions) / len(precisions),
            "classes_without_pictures": belongs.shape[1] - len(with_pictures),
        }


def _scores(predictions: np.ndarray, references: np.ndarray) -> tuple[Tensor, Tensor]:
    """(pictures, classes), fp32, and (pictures,), int64."""
    scores, labels = _rows(predictions, "predictions"), torch.tensor(references)
    check_finite(scores, "predictions")
    classes = scores.shape[1]
    if classes < 2:
        raise InputError("predictions: scores over one class decide nothing: give one a class")
    known = (labels >= 0) & (labels < classes)
    if not known.all():
        row = int((~known).nonzero()[0])
        raise InputError(
            f"references: row {row} names the class {labels[row].item()}, but predictions score {classes}: "
            f"give classes from 0 to {classes - 1}"
        )
    return scores, labels.long()


# ---- both ---------------------------------------------------------------------------------------------------------


def _rows(array: np.ndarray, name: str) -> Tensor:
    """(rows, columns), fp32.

    Raises:
        InputError: no rows, or of unlike length.
    """
    if len(array) == 0:
        raise InputError(f"{name}: not one row was added, so there is nothing to measure")
    if array.ndim == 1:  # of arrays
        lengths = [0 if row is None else len(row) for row in array]
        row = next((row for row, length in enumerate(lengths) if length != lengths[0]), 0)
        raise InputError(f"{name}: row 0 has {lengths[0]} numbers and row {row} {lengths[row]}: give each as many")
    return torch.tensor(array, dtype=torch.float32)


def _check_columns(predictions: Tensor, references: Tensor) -> None:
    if predictions.shape[1] != references.shape[1]:
        raise InputError(
            f"predictions have {predictions.shape[1]} numbers a row and references {references.shape[1]}: "
            "give both as many"
        )


def _checked_ks(asked: Sequence[int] | None, default: Sequence[int], most: int, candidates: str) -> list[int]:
    """What was asked for; of the default, what there are candidates for."""
    for k in asked or ():
        if not 1 <= k <= most:
            raise InputError(f"k = {k} of {candidates} measures nothing: give ks from 1 to {most}")
    return [k for k in default if k <= most] if asked is None else list(asked)
