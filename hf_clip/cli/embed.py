"""`hf-clip embed`: writes the embeddings of pictures and captions into a folder; run again, it goes on."""

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from ..core.errors import InputError, first_line
from .output import Printer, silence_below_python
from .parsing import Parser, add_data_settings, add_shared_settings, embed_options, open_data, open_model, positive_int


def run(arguments: list[str], printer: Printer) -> None:
    settings = _parser().parse_args(arguments)

    from ..data.images import skipped_line
    from ..embeddings.store import read_manifest

    if settings.num_processes > 1:
        _start_processes(settings)
        manifest = read_manifest(Path(settings.output))
    else:
        manifest, is_main = _embed(settings)
        if not is_main:
            return
    if settings.json:
        printer.json({"output": settings.output, **manifest["counts"], "skipped_rows": manifest["skipped"]})
        return
    printer.table(["", "rows"], [[name, number] for name, number in manifest["counts"].items()])
    for row, name, reason in manifest["skipped"]:
        printer.line(f"skipped {skipped_line(row, name, reason)}")
    printer.line(f"embeddings: {settings.output}")


def _embed(settings: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """(manifest, whether this process prints it)"""
    from ..embeddings.writing import processes, write_embeddings

    source = open_data(settings, captions_required=False)
    state = processes()  # before the model is opened: it says which GPU is this process's own
    model, processor = open_model(settings.model)
    manifest = write_embeddings(
        model,
        processor,
        source,
        settings.output,
        embed_options(settings),
        model_name=settings.model,
        segment_size=settings.segment_size,
    )
    return manifest, state.is_main_process


def _start_processes(settings: argparse.Namespace) -> None:
    """Raises the first error of any of them; the others end with it."""
    import torch
    from accelerate.utils import PrepareForLaunch, patch_environment
    from accelerate.utils.other import get_free_port

    if "WORLD_SIZE" in os.environ:
        raise InputError("a launcher has started several processes already: leave out --num_processes")
    gpus = torch.cuda.device_count()
    if 0 < gpus < settings.num_processes:
        raise InputError(f"--num_processes {settings.num_processes} is more than the {gpus} GPUs here")
    errors = torch.multiprocessing.get_context("spawn").SimpleQueue()
    start = PrepareForLaunch(_embed_or_tell, distributed_type="MULTI_GPU" if gpus else "MULTI_CPU")
    world = {"world_size": settings.num_processes, "local_world_size": settings.num_processes}
    address = {"master_addr": "127.0.0.1", "master_port": str(get_free_port())}
    with patch_environment(**world, **address):
        try:
            torch.multiprocessing.spawn(start, (settings, errors), nprocs=settings.num_processes)
        except torch.multiprocessing.ProcessExitedException as error:
            cause = f"{first_line(error)}: run it again, and it goes on" if errors.empty() else errors.get()
            raise InputError(cause) from error


def _embed_or_tell(settings: argparse.Namespace, errors: Any) -> None:
    silence_below_python()
    with contextlib.redirect_stdout(sys.stderr):
        try:
            _embed(settings)
        except (InputError, FloatingPointError) as error:
            errors.put(str(error))
            sys.exit(2)


def _parser() -> Parser:
    parser = Parser("hf-clip embed", description=__doc__)
    add_shared_settings(parser)
    add_data_settings(parser)
    parser.add_argument("--output", required=True, help="folder for the embeddings")
    parser.add_argument("--segment_size", type=positive_int, default=10_000, help="source rows of a segment")
    parser.add_argument(
        "--num_processes", type=positive_int, default=1, help="processes that share the work, each on a GPU or on CPU"
    )
    return parser
