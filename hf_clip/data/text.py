"""Text that a tokenizer takes; what is none is refused in a line that says where it stands."""

from ..core.errors import InputError


def check_text(text: object, where: str, what: str = "a caption") -> None:
    """
    Args:
        where: begins the complaint: "a.tar: sample '000'".
        what: the text is.

    Raises:
        InputError: it is no text, or holds half of a surrogate pair, which no encoding has.
    """
    if not isinstance(text, str):
        raise InputError(f"{where} has {type(text).__name__} for {what}, not text: fix or remove it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where} has half of a surrogate pair ({text[error.start]!a}) in {what}, which no tokenizer takes: "
            "fix or remove it"
        ) from error


def trimmed(text: str) -> str:
    """Without white space around it, and without the mark (BOM) that editors put before it."""
    return text.strip().removeprefix("\ufeff").strip()
