"""`hf_clip.publish`: a trained model, its card and its figures as a repository of the Hub, in one commit."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, overload

from huggingface_hub import snapshot_download

from ..core.errors import InputError, first_line
from ..core.temporary import temporary_folder
from .card.facts import CardDetails
from .hub import HubTarget, Publication, look_first, push_folder
from .hub_ids import is_hub_id
from .saved_model import SavedModel
from .staging import PublishOptions, stage


@overload
def publish(
    model: str | Path,
    target: str | HubTarget,
    options: PublishOptions | None = None,
    *,
    commit_message: str = "Publish with hf_clip",
    dry_run: Literal[False] = False,
) -> Publication: ...


@overload
def publish(
    model: str | Path,
    target: str | HubTarget,
    options: PublishOptions | None = None,
    *,
    dry_run: Literal[True],
    output: str | Path = "hf_clip_publication",
) -> Path: ...


@overload
def publish(
    model: str | Path,
    target: str | HubTarget,
    options: PublishOptions | None = None,
    *,
    commit_message: str = "Publish with hf_clip",
    dry_run: bool,
    output: str | Path = "hf_clip_publication",
) -> Publication | Path: ...


def publish(
    model: str | Path,
    target: str | HubTarget,
    options: PublishOptions | None = None,
    *,
    commit_message: str = "Publish with hf_clip",
    dry_run: bool = False,
    output: str | Path = "hf_clip_publication",
) -> Publication | Path:
    """Makes a repository of the Hub hold a trained model: weights, code, processor, card, figures.

        hf_clip.publish("my_clip", "user/my-clip")
        hf_clip.publish("my_clip", hf_clip.HubTarget("user/my-clip", private=True))

    The repository is made where it is not there. Run again after a failure it goes on; after a success it changes
    nothing. The model's folder is only read.

    Args:
        model: the folder of a run, or any with a saved model or adapter; a Hub id, which is downloaded.
        target: "user/name", "name" for one of the token's user, or a `HubTarget` with the details of the push.
        options: what goes up beside the model, and what the card says.
        commit_message: of the one commit.
        dry_run: writes what would go up into `output`, and asks nobody.
        output: of a dry run, a folder that is not there yet or is empty.

    Returns:
        What was published; of a dry run the folder.

    Raises:
        InputError: a folder without a model; whatever `push_folder` refuses, where it can be known before the work; an
            evaluation of another model; a secret, or a path of this machine, in what would go up.
    """
    if not isinstance(model, str | Path):
        raise InputError(
            f"model is a {type(model).__name__}: give a Hub id, or the folder that save_pretrained wrote, model and "
            "processor"
        )
    target = HubTarget(target) if isinstance(target, str) else target
    if not isinstance(target, HubTarget):
        raise InputError(f'target is a {type(target).__name__}: give "user/name" or a HubTarget')
    options = _checked(options or PublishOptions())
    if dry_run:
        return _write(Path(output), model, target, options)
    if Path(model).is_dir():
        SavedModel(model).check_holds_model()
    target = replace(target, repo_id=look_first(target))  # a minute's work comes after it
    saved = _saved(model)
    with temporary_folder() as aside:
        stage(saved, aside, _named(options, target, saved), token=target.token)
        return push_folder(aside, target, commit_message=commit_message)


def _checked(options: object) -> PublishOptions:
    if isinstance(options, CardDetails):
        raise InputError("options are CardDetails: give PublishOptions(details), which hold them")
    if not isinstance(options, PublishOptions):
        raise InputError(f"options are a {type(options).__name__}: give PublishOptions")
    return options


def _write(folder: Path, model: str | Path, target: HubTarget, options: PublishOptions) -> Path:
    if "/" not in target.repo_id:
        raise InputError(
            f"a dry run asks nobody whose {target.repo_id} is: give repo_id with its owner, user/{target.repo_id}"
        )
    if not is_hub_id(target.repo_id):
        raise InputError(f"{target.repo_id!r} is no name of a repository on the Hub: give one such as user/name")
    saved = _saved(model)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} already exists: give another output, or remove it")
    if saved.folder.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise InputError(f"output {folder} lies in the model's own folder: give one beside it")
    with temporary_folder(_above(folder)) as aside:
        stage(saved, aside / "staged", _named(options, target, saved), token=target.token, copy=True)
        if folder.exists():
            folder.rmdir()
        (aside / "staged").rename(folder)
    return folder


def _above(folder: Path) -> Path:
    above = folder.absolute().parent
    try:
        above.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}") from error
    return above


def _saved(model: str | Path) -> SavedModel:
    """What the folder holds, which for a Hub id is downloaded."""
    if Path(model).is_dir() or Path(model).is_absolute():
        return SavedModel(model)
    try:
        return SavedModel(snapshot_download(str(model)))
    except (OSError, ValueError) as error:
        raise InputError(
            f"model {model} is no folder, nor on the Hub ({first_line(error)}): check its name"
        ) from error


def _named(options: PublishOptions, target: HubTarget, saved: SavedModel) -> PublishOptions:
    """With the repository's name on the card; of an adapter, the base is what it adapts."""
    details = replace(options.details, name=target.repo_id)
    if not saved.is_adapter:
        if options.adapter_of:
            raise InputError(f"adapter_of is for an adapter, and {saved.folder} holds a whole model: leave out")
        return replace(options, details=details)
    if len(details.base_model) > 1:
        raise InputError(
            f"an adapter has one base, not {len(details.base_model)}: give base_model the model that it adapts"
        )
    adapter_of = options.adapter_of or next(iter(details.base_model), None)
    return replace(options, details=replace(details, base_model=[]), adapter_of=adapter_of)
