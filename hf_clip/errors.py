"""The one kind of error that is the input's fault: the commands print it as a line and exit with code 2."""


class InputError(ValueError):
    """Says what is wrong, with which file or row, and how to mend it."""
