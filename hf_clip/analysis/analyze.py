"""`hf_clip.analyze`: what a model says of a data set, from one pass over it."""

from pathlib import Path

from ..core.counts import check_count
from ..core.errors import InputError
from ..core.public import public_name
from ..data.given import Data, as_source, called
from ..data.sources import Source
from ..embeddings.encode import Embeddings, embed_source
from ..embeddings.manifest import MANIFEST
from ..embeddings.options import EmbedOptions
from ..embeddings.store import check_made_by, open_embeddings
from ..evaluation.report_folder import prepare_folder
from ..models.trained import TrainedModel, keep_modes, name_of, open_trained
from .measures import Rows, measure_all
from .report import RESULTS, AnalysisReport
from .word_pairs import Pairs, embed_pairs, read_pairs


@keep_modes
def analyze(
    model: TrainedModel,
    data: Data,
    pairs: Pairs = (),
    *,
    top: int = 20,
    output: str | Path | None = None,
    options: EmbedOptions | None = None,
) -> AnalysisReport:
    """Finds what stands out in a data set: captions that fit their images badly, outliers, and how images lie between
    opposite words.

        report = hf_clip.analyze("my_clip", "images", ["a happy face / a sad face"])
        report.results().mislabelled

    Args:
        model: a folder, a Hub id, or the pair (model, processor).
        data: a source, by name or opened; or a folder that `embed` wrote, without names, captions and drawings.
        pairs: opposites to score images by: ("a happy face", "a sad face"), one text with a / between the two, or a
            .txt file with such a text a line.
        top: rows listed of each kind.
        output: the folder for `analysis.json`, tables, page and images, which an earlier report may be in; None:
            nothing is written or drawn.
        options: how images and captions are embedded.

    Raises:
        InputError: no such model or data; a pair without two different sides; embeddings of another model, or with
            `options` that are strict.
    """
    check_count("top", top)
    opposites = read_pairs(pairs)
    folder = None if output is None else prepare_folder(output, RESULTS)
    options = options or EmbedOptions()
    given = _open(data)
    if options.strict and not isinstance(given, Source):
        raise InputError(f"{called(data)} holds embeddings, so strict can change nothing: leave out")
    opened, processor = open_trained(model)
    pair_embeds, notes = embed_pairs(opened, processor, opposites)
    if isinstance(given, Source):
        source, embeddings = given, embed_source(opened, processor, given, options)
    else:
        source, embeddings = None, given
        check_made_by(opened, str(data))
    outcome = measure_all(
        embeddings, pair_embeds, opened.logit_scale.detach().cpu(), device=opened.device, progress=options.progress
    )
    outcome.notes += notes
    named = name_of(model), public_name(called(data))
    report = AnalysisReport(*named, opposites, outcome, Rows(source, embeddings), top)
    if folder is not None:
        report.write(folder)
    return report


def _open(data: Data) -> Source | Embeddings:
    if isinstance(data, str | Path) and Path(data, MANIFEST).is_file():
        return open_embeddings(data)
    return as_source(data, captions_required=False)
