"""Settings that count something, as a Python caller gives them."""

from numbers import Integral

from .errors import InputError


def check_count(name: str, value: object, least: int = 1) -> None:
    """
    Raises:
        InputError: what is no whole number, or too small a one.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise InputError(f"{name} is {value!r}: give a whole number")
    if value < least:
        raise InputError(f"{name} must be {least} or more, not {value}")


def check_counts(name: str, values: object) -> None:
    """
    Raises:
        InputError: what is no list of whole numbers of 1 or more.
    """
    if not isinstance(values, list | tuple | range):
        raise InputError(f"{name} is {values!r}: give a list of whole numbers")
    for value in values:
        check_count(f"each of {name}", value)
