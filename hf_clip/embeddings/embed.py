"""`hf_clip.embed`: the embeddings of images and captions, in memory or in a folder."""

from pathlib import Path
from typing import overload

from ..core.counts import check_count
from ..core.errors import InputError
from ..data.given import Data, as_source
from ..models.trained import TrainedModel, keep_modes, name_of, open_trained
from .encode import Embeddings, embed_source
from .options import EmbedOptions
from .processes import run_in_processes
from .store import EmbeddingStore
from .writing import processes, write_embeddings

_SEGMENT_SIZE = 10_000


@overload
def embed(
    model: TrainedModel, data: Data, output: None = None, *, options: EmbedOptions | None = None
) -> Embeddings: ...


@overload
def embed(
    model: TrainedModel,
    data: Data,
    output: str | Path,
    *,
    options: EmbedOptions | None = None,
    segment_size: int = _SEGMENT_SIZE,
    num_processes: int = 1,
) -> EmbeddingStore: ...


@keep_modes
def embed(
    model: TrainedModel,
    data: Data,
    output: str | Path | None = None,
    *,
    options: EmbedOptions | None = None,
    segment_size: int = _SEGMENT_SIZE,
    num_processes: int = 1,
) -> Embeddings | EmbeddingStore:
    """Embeds every image of the data, and its captions.

        embeddings = hf_clip.embed("my_clip", "images")            # tensors
        store = hf_clip.embed("my_clip", "images", "embeddings")   # a folder; interrupted, it goes on

    Args:
        model: a folder, a Hub id, or the pair (model, processor).
        data: a source, by name or opened.
        output: the folder to write; None: the embeddings stay in memory. One that an interrupted pass has left is
            finished. Where `accelerate launch` has started several processes, each writes its share.
        segment_size: of a folder, source rows that are written at a time.
        num_processes: that write a folder, each on a GPU of its own or on the CPU. The model is then given by name,
            and a script calls this below `if __name__ == "__main__":`, for each process reads it.

    Returns:
        In memory `Embeddings`; of a folder the store, which opens its segments one after another.

    Raises:
        InputError: no such model or data; no image can be read or, where `options` are strict, one cannot; the folder
            holds something else, or embeddings of another model, preprocessing, data or segment size.
    """
    for name, value in (("segment_size", segment_size), ("num_processes", num_processes)):
        check_count(name, value)
    source = as_source(data, captions_required=False)
    if output is None:
        if num_processes > 1:
            raise InputError("num_processes is for writing a folder: give output too, or leave it out")
        if segment_size != _SEGMENT_SIZE:
            raise InputError("segment_size is for writing a folder: give output too, or leave it out")
        return embed_source(*open_trained(model), source, options)
    work = (model, source, output, options or EmbedOptions(), segment_size)
    if num_processes == 1:
        _write(*work)
    else:
        if not isinstance(model, str | Path):
            raise InputError("several processes open the model anew: give its folder or Hub id, or num_processes=1")
        run_in_processes(_write, work, num_processes)
    return EmbeddingStore.open(output)


def _write(model: TrainedModel, source: Data, output: str | Path, options: EmbedOptions, segment_size: int) -> None:
    processes()  # before the model is opened: it says which GPU is this process's own
    opened, processor = open_trained(model)
    write_embeddings(
        opened,
        processor,
        as_source(source),
        output,
        options,
        model_name=name_of(model),
        segment_size=segment_size,
    )
