"""The one kind of error that is the input's fault: the commands print it as a line and exit with code 2."""


class InputError(ValueError):
    """Says what is wrong, with which file or row, and how to mend it."""

    def __init__(self, message: str = ""):
        # torch raises a DataLoader worker's error again with a traceback for a message; its last line is the error.
        if message.startswith("Caught InputError in "):
            message = message.rpartition(f"{__name__}.InputError: ")[2].strip()
        super().__init__(message)


class NotFinite(InputError):
    """A run's loss or weights are NaN or infinite: nothing of it is worth saving."""


def first_line(error: BaseException) -> str:
    """What an error says, without the lines that explain it at length; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def shortened(value: object, most: int = 120) -> str:
    """A value as a line shows it: one that goes on for pages, as an image in letters does, is cut."""
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"
