"""Raw text to words and back as the Moses scripts do it, by sacremoses with its slow spots worked around."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import sacremoses

NUMBER_MARK = re.compile(r"(?<=\d)[,.](?=\d)")
SPLIT_NUMBER_MARK = r" @\g<0>@ "
CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0e-\x1b]")
PLAIN_STRETCH = re.compile(r"([A-Za-z0-9]+)([,;:?!)\"]?)")
WORDS_TO_REMEMBER = 1 << 17


def tokenize_numbers(tokens: Iterable[str]) -> list[str]:
    """The tokens with the marks inside numbers split off.

    >>> tokenize_numbers(["$", "5,000", "1.73", "m"])
    ['$', '5', '@,@', '000', '1', '@.@', '73', 'm']
    """
    return NUMBER_MARK.sub(SPLIT_NUMBER_MARK, " ".join(tokens)).split()


def detokenize_numbers(text: str) -> str:
    """The text with the marks inside numbers put back.

    >>> detokenize_numbers("$ 5 @,@ 000 1 @.@ 73 m")
    '$ 5,000 1.73 m'
    """
    return text.replace(" @,@ ", ",").replace(" @.@ ", ".")


class Moses:
    """The Moses scripts for one language: `normalize` punctuation, `split` into words, `join` them again.

    Every result equals that of sacremoses with dashes split and nothing escaped.

    >>> moses = Moses("en")
    >>> moses.split("Don't pay 23,000 (or so).")
    ['Don', "'t", 'pay', '23,000', '(', 'or', 'so', ')', '.']
    """

    def __init__(self, language: str = "en") -> None:
        self.language = language
        substitutions = sacremoses.MosesPunctNormalizer(language).substitutions
        self._normalizer_rules = [_normalizer_rule(pattern, replacement) for pattern, replacement in substitutions]
        self._splitter = _Splitter(language)
        self._joiner = sacremoses.MosesDetokenizer(language)
        self._split_stretch = lru_cache(WORDS_TO_REMEMBER)(self._split_stretch_anew)

    def __reduce__(self) -> tuple[type[Moses], tuple[str]]:
        return Moses, (self.language,)

    def normalize(self, text: str) -> str:
        """The text with typographic quotes, dashes and spaces in their plain forms."""
        for needed, pattern, replacement in self._normalizer_rules:
            if needed in text:
                text = pattern.sub(replacement, text)
        return text.strip()

    def split(self, text: str, never_split: Sequence[str] = (), split_numbers: bool = False) -> list[str]:
        """The words and punctuation marks of a text; tokens that are `never_split` stay whole, in either case.

        The rules are written for whole texts, but nearly all of them stay inside one stretch between white space. So
        each stretch is split by itself and its words are remembered; a text in which a rule reaches further is split
        as a whole.
        """
        stretches = text.split()
        if (
            "' '" in " ".join(stretches)  # one apostrophe would take away the space that the other one needs
            or CONTROL_CHARACTER.search(text)
            or (never_split and _any_of(tuple(never_split)).search(text))
        ):
            words = self._split_whole(text, never_split)
            return tokenize_numbers(words) if split_numbers else words
        words = []
        last = len(stretches) - 1
        for index, stretch in enumerate(stretches):
            following = "" if index == last else "A"
            if stretch[-1] == "." and following:
                following = self._stand_in(stretches[index + 1][0])
            words += self._split_stretch(stretch, index == 0, following, split_numbers)
        return words

    def join(self, tokens: Sequence[str]) -> str:
        """The text of the tokens, with punctuation where one writes it and numbers in one piece."""
        return detokenize_numbers(self._joiner.detokenize(tokens)).strip()

    def _stand_in(self, character: str) -> str:
        """A word that decides as `character` does whether a period before it ends a sentence."""
        if character in self._splitter.IsLower:
            return "a"
        return "0" if character in "0123456789" else "A"

    def _split_stretch_anew(self, stretch: str, is_first: bool, following: str, split_numbers: bool) -> list[str]:
        """The words of a stretch between white space, split between stand-ins for its neighbours."""
        plain = PLAIN_STRETCH.fullmatch(stretch)
        if plain and "MULTI" not in stretch:  # with which sacremoses marks several dots
            return [word for word in plain.groups() if word]
        neighbourhood = [stretch] if is_first else ["A", stretch]
        if following:
            neighbourhood.append(following)
        words = self._split_whole(" ".join(neighbourhood))
        words = words[0 if is_first else 1 : -1 if following else None]
        return tokenize_numbers(words) if split_numbers else words

    def _split_whole(self, text: str, never_split: Sequence[str] = ()) -> list[str]:
        patterns = [re.escape(token) for token in never_split]
        words: list[str] = self._splitter.tokenize(
            text, aggressive_dash_splits=True, escape=False, protected_patterns=patterns
        )
        return words


class _Splitter(sacremoses.MosesTokenizer):  # type: ignore[misc]  # sacremoses publishes no types
    """The Moses splitter without a set of all letters, or of all small ones, made anew for each period."""

    def __init__(self, language: str) -> None:
        super().__init__(language)
        self._letter = re.compile(f"[{self.IsAlpha}]")

    def isanyalpha(self, text: str) -> bool:
        return bool(self._letter.search(text))

    def islower(self, text: str) -> bool:
        return all(character in self.IsLower for character in text)


def _normalizer_rule(pattern: str, replacement: str) -> tuple[str, re.Pattern[str], str]:
    """A rule behind the character that a text needs to have for it."""
    if pattern == " +":
        return "  ", re.compile("  +"), replacement
    literals = re.sub(r"\[[^]]*]|\\[a-zA-Z]|[()+*]", "", pattern).replace("\\", "")
    # The rarest one: no space if there is any other.
    return max(literals, key=lambda literal: (literal != " ", literal), default=""), re.compile(pattern), replacement


@lru_cache
def _any_of(tokens: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, tokens)), re.IGNORECASE)
