"""What can be the name of a repository on the Hub."""

from huggingface_hub.utils import HFValidationError, validate_repo_id

from ..core.public import FROM_SCRATCH


def is_hub_id(name: str | None, *, without_owner: bool = False) -> bool:
    """Whether a name can be that of a repository on the Hub.

    Args:
        without_owner: whether "bert-base-uncased" is one, as old repositories are called; so may a folder be.
    """
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    if not name or not name.isascii() or name.startswith((".", FROM_SCRATCH)):
        return False
    return without_owner or "/" in name
