"""`hf-clip publish`: a trained model, its card and its figures as a repository of the Hub, in one commit."""

import argparse
from typing import TYPE_CHECKING

from .command import Command
from .output import Printer
from .parsing import Parser, add_shared_settings

if TYPE_CHECKING:
    from ..publishing.staging import PublishOptions


class Publish(Command):
    name, help = "publish", "send a trained model with its card to the Hub, in one commit"

    def add_arguments(self, parser: Parser) -> None:
        add_shared_settings(parser)
        parser.add_argument("--repo_id", required=True, help="user/name, or a name of your own")
        parser.add_flag("--private", help="make the repository private, where it is new")
        parser.add_argument("--revision", help="branch to commit to; default: main")
        parser.add_flag("--create_pr", help="as a pull request, for its owner to merge")
        parser.add_flag(
            "--overwrite",
            help="also where the repository holds what hf_clip did not put there: files by the names that hf_clip "
            "uses are replaced or removed, others stay",
        )
        parser.add_argument(
            "--timeout",
            type=float,
            help="seconds that the upload may take in all; default: ten minutes, and one for each 100 kB",
        )
        parser.add_argument("--commit_message", default="Publish with hf_clip")
        parser.add_flag("--dry_run", help="write the folder and send nothing")
        parser.add_argument("--output", default="hf_clip_publication", help="of --dry_run: the folder to write")
        parser.add_argument("--max_shard_size", default="5GB", help="of a file of weights")
        card = parser.add_argument_group("for the card")
        card.add_argument("--license", help="as the Hub calls it: apache-2.0, cc-by-sa-4.0, …")
        card.add_argument("--language", nargs="+", default=[], help="of the captions: en zh …")
        card.add_argument("--datasets", nargs="+", default=[], help="Hub ids of what it was trained on")
        card.add_argument(
            "--base_model",
            nargs="+",
            default=[],
            help="Hub ids of the towers, where the run does not know; of an adapter, of what it adapts",
        )
        card.add_argument("--description", default="", help="what the model is for, in a few sentences")
        card.add_argument("--evaluation", nargs="+", default=[], help="folders that `hf-clip evaluate --output` wrote")
        card.add_argument("--example_picture", help="for the examples; it is copied into the repository")
        card.add_argument("--example_labels", nargs="+", default=[], help="what it may show: 'a cat' 'a dog'")
        parser.add_flag(
            "--pictures", help="show pictures of the training and evaluation data; default: charts without them"
        )

    def run(self, settings: argparse.Namespace, printer: Printer) -> None:
        from ..publishing.hub import HubTarget, file_sizes
        from ..publishing.publish import publish

        where = {name: vars(settings)[name] for name in ("private", "revision", "create_pr", "overwrite", "timeout")}
        target = HubTarget(settings.repo_id, **where)
        if settings.dry_run:
            folder = publish(settings.model, target, _options(settings), dry_run=True, output=settings.output)
            files, result = file_sizes(folder), {"folder": settings.output}
            said = f"nothing was sent; this is what would go up to {settings.repo_id}: {settings.output}"
        else:
            published = publish(settings.model, target, _options(settings), commit_message=settings.commit_message)
            files, result = published.files, vars(published)
            place = f"{published.pull_request or published.url} at {published.revision}"
            said = f"published: {place}" if published.changed else f"nothing has changed: {place}"
        if settings.json:
            printer.json(result | {"files": [{"name": name, "bytes": size} for name, size in files.items()]})
            return
        printer.table(["file", "bytes"], list(files.items()))
        printer.line()
        printer.line(said)


def _options(settings: argparse.Namespace) -> "PublishOptions":
    from ..publishing.card.facts import CardDetails
    from ..publishing.staging import PublishOptions

    said = ("license", "language", "datasets", "base_model", "description", "example_labels")
    return PublishOptions(
        CardDetails(**{name: vars(settings)[name] for name in said}),
        evaluations=settings.evaluation,
        pictures=True if settings.pictures else None,
        example_picture=settings.example_picture,
        max_shard_size=settings.max_shard_size,
    )


COMMAND = Publish()
