"""Errors a user can act on: what, which value, which rule."""

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(ValueError):
    """A mistake in the input of a command; the command line shows it as one line, exit code 2."""


def require(condition: bool, field: str, value: Any, rule: str) -> None:
    """Raise a `UserError` naming `field`, `value` and `rule` unless `condition` holds."""
    if not condition:
        raise UserError(f"{field} is {value!r}: {rule}")


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint such as ` (did you mean 'layers'?)`, or an empty string when nothing is near."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
