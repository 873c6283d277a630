"""`hf-clip embed`: writes the embeddings of pictures and captions into a folder; run again, it goes on."""

import argparse

from .command import Command
from .output import Printer
from .parsing import Parser, add_data_settings, add_shared_settings, embed_options, open_data, positive_int


class Embed(Command):
    name, help = "embed", "write the embeddings of pictures and captions to parquet"

    def add_arguments(self, parser: Parser) -> None:
        add_shared_settings(parser)
        add_data_settings(parser)
        parser.add_argument("--output", required=True, help="folder for the embeddings")
        parser.add_argument("--segment_size", type=positive_int, default=10_000, help="source rows of a segment")
        parser.add_argument(
            "--num_processes",
            type=positive_int,
            default=1,
            help="processes that share the work, each on a GPU or on CPU",
        )

    def run(self, settings: argparse.Namespace, printer: Printer) -> None:
        from ..data.images import skipped_line
        from ..embeddings.embed import embed
        from ..embeddings.writing import processes

        store = embed(
            settings.model,
            open_data(settings, captions_required=False),
            settings.output,
            options=embed_options(settings),
            segment_size=settings.segment_size,
            num_processes=settings.num_processes,
        )
        if not processes().is_main_process:
            return
        counts, skipped = vars(store.manifest.counts), store.manifest.skipped
        if settings.json:
            printer.json({"output": settings.output, **counts, "skipped_rows": skipped})
            return
        printer.table(["", "rows"], [[name, number] for name, number in counts.items()])
        for row, name, reason in skipped:
            printer.line(f"skipped {skipped_line(row, name, reason)}")
        printer.line(f"embeddings: {settings.output}")


COMMAND = Embed()
