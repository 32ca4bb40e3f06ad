"""How long a text is: in characters, bytes and words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TextCounts:
    """The length of a text in each of the units that a score is quoted in.

    characters: code points.
    bytes: bytes of its UTF-8 form.
    words: what stands between white space; line ends are none.

    >>> TextCounts.of("né à Paris")
    TextCounts(characters=10, bytes=12, words=3)
    """

    characters: int
    bytes: int
    words: int

    @classmethod
    def of(cls, text: str) -> TextCounts:
        """The counts of a text."""
        return cls(len(text), len(text.encode("utf-8", "surrogateescape")), len(text.split()))
