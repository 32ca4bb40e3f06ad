"""The forms in which a model takes its inputs: keywords, one tensor, a list, a tuple or a dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def named_arguments(names: Sequence[str], num_positions: int, first: Any, others: Sequence[Any] = ()) -> dict[str, Any]:
    """Return the arguments by name, those that are None left out.

    Args:
        names: All arguments that the model takes, in the order of positions.
        num_positions: How many of them may be given without a name.
        first: The first argument: ids, a list or tuple of arguments in order, or a dict of arguments.
        others: Further arguments in order.

    Raises:
        ValueError: There are too many arguments, one is unknown, or nested lists of numbers could be anything.
    """
    if isinstance(first, Mapping):
        unknown = sorted(set(first) - set(names))
        if unknown:
            raise ValueError(f"The inputs hold {', '.join(unknown)}, but this model takes {', '.join(names)}.")
        given = dict(first)
        positional = [None, *others]
    elif isinstance(first, list | tuple):
        if first and isinstance(first[0], int | float | list | tuple):
            raise ValueError(
                "A nested list of numbers could be ids or a list of inputs: give ids as an array, numpy.array(ids)."
            )
        given = {}
        positional = [*first, *others]
    else:
        given = {}
        positional = [first, *others]
    if len(positional) > num_positions:
        raise ValueError(
            f"{len(positional)} inputs were given in order, but this model takes {num_positions}: "
            f"{', '.join(names[:num_positions])}; give others by name."
        )
    named = {**dict(zip(names, positional, strict=False)), **given}
    return {name: value for name, value in named.items() if value is not None}
