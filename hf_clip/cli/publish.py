"""`hf-clip publish`: a trained model, its card and its figures as a repository of the Hub, in one commit."""

import argparse
from pathlib import Path
from typing import Any

from ..core.errors import InputError, first_line
from ..core.temporary import temporary_folder
from .output import Printer
from .parsing import Parser, add_shared_settings


def run(arguments: list[str], printer: Printer) -> None:
    settings = _parser().parse_args(arguments)
    result = _stage_only(settings) if settings.dry_run else _publish(settings)
    if settings.json:
        printer.json(result)
        return
    printer.table(["file", "bytes"], [[file["name"], file["bytes"]] for file in result["files"]])
    printer.line()
    if settings.dry_run:
        printer.line(f"nothing was sent; this is what would go up to {settings.repo_id}: {result['folder']}")
    elif not result["changed"]:
        printer.line(f"nothing has changed: {result['url']} at {result['revision']}")
    else:
        printer.line(f"published: {result['pull_request'] or result['url']} at {result['revision']}")


def _stage_only(settings: argparse.Namespace) -> dict[str, Any]:
    from ..publishing.staging import stage

    if "/" not in settings.repo_id:
        raise InputError(f"--dry_run asks nobody whose {settings.repo_id} is: give --repo_id user/{settings.repo_id}")
    folder, source = Path(settings.output), _source(settings.model)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} already exists: give another --output, or remove it")
    if source.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise InputError(f"--output {folder} lies in the model's own folder: give one beside it")
    with temporary_folder(_above(folder)) as aside:
        stage(source, aside / "staged", _content(settings, settings.repo_id, source), copy=True)
        if folder.exists():
            folder.rmdir()
        (aside / "staged").rename(folder)
    return {"folder": settings.output, "files": _files(folder)}


def _above(folder: Path) -> Path:
    above = folder.absolute().parent
    try:
        above.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}") from error
    return above


def _source(model: str) -> Path:
    """The folder, which for a Hub id is downloaded."""
    if Path(model).is_dir() or Path(model).is_absolute():
        return Path(model)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model))
    except (OSError, ValueError) as error:
        raise InputError(
            f"--model {model} is no folder, nor on the Hub ({first_line(error)}): check its name"
        ) from error


def _publish(settings: argparse.Namespace) -> dict[str, Any]:
    from ..publishing.hub import look_first, push_folder
    from ..publishing.staging import check_holds_model, stage

    if Path(settings.model).is_dir():
        check_holds_model(Path(settings.model))
    where = {name: vars(settings)[name] for name in ("private", "revision", "create_pr", "overwrite", "timeout")}
    name = look_first(settings.repo_id, **where)  # a minute's work comes after it
    source = _source(settings.model)
    with temporary_folder() as aside:
        stage(source, aside, _content(settings, name, source))
        published = push_folder(aside, name, commit_message=settings.commit_message, **where)
        return vars(published) | {"files": _files(aside)}


def _content(settings: argparse.Namespace, name: str, source: Path) -> Any:
    from ..publishing.card.facts import is_adapter
    from ..publishing.card.render import CardDetails
    from ..publishing.staging import Content

    base = settings.base_model
    if is_adapter(source) and len(base) > 1:
        raise InputError(f"an adapter has one base, not {len(base)}: give --base_model the model that it adapts")
    details = CardDetails(
        name=name,
        license=settings.license,
        language=settings.language,
        datasets=settings.datasets,
        base_model=[] if is_adapter(source) else base,
        description=settings.description,
        example_labels=settings.example_labels,
    )
    return Content(
        details,
        evaluations=settings.evaluation,
        pictures=True if settings.pictures else None,
        example_picture=settings.example_picture,
        adapter_of=base[0] if is_adapter(source) and base else None,
        max_shard_size=settings.max_shard_size,
    )


def _files(folder: Path) -> list[dict[str, Any]]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [{"name": file.relative_to(folder).as_posix(), "bytes": file.stat().st_size} for file in files]


def _parser() -> Parser:
    parser = Parser("hf-clip publish", description=__doc__)
    add_shared_settings(parser)
    parser.add_argument("--repo_id", required=True, help="user/name, or a name of your own")
    parser.add_flag("--private", help="make the repository private, where it is new")
    parser.add_argument("--revision", help="branch to commit to; default: main")
    parser.add_flag("--create_pr", help="as a pull request, for its owner to merge")
    parser.add_flag(
        "--overwrite",
        help="also where the repository holds what hf_clip did not put there: files by the names that hf_clip uses "
        "are replaced or removed, others stay",
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
    return parser
