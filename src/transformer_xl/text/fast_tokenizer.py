"""TransfoXLTokenizerFast: the Moses rules as regular expressions that the Rust library `tokenizers` runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import sacremoses
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from transformer_xl.text.tensors import TensorFlowTensors
from transformer_xl.text.tokenizer import TransfoXLTokenizer

DIGITS_AROUND_A_SPACE = "(\\d)\u00a0(\\d)"
# What does the work of a rule of sacremoses without copying groups. Runs of marks are taken up to three.
RULES_WITHOUT_GROUPS: dict[str, list[tuple[str, str]]] = {
    " +": [("  +", " ")],
    r"\) ([.!:?;,])": [(r"(?<=\)) (?=[.!:?;,])", "")],
    r"(\d) %": [(r"(?<=\d) (?=%)", "")],
    # The rules for the quotes themselves, which follow, do this too.
    "([a-zA-Z])\u2018([a-zA-Z])": [],
    "([a-zA-Z])\u2019([a-zA-Z])": [],
    r'"([,.]+)': [(rf'"{re.escape(marks)}(?![,.])', f'{marks}"') for marks in ("...", "..", ".,", ",.", ".", ",")],
    r'(\.+)"(\s*[^<])': [(rf'(?<!\.){re.escape(dots)}"(?=\s*[^<])', f'"{dots}') for dots in ("...", "..", ".")],
}


class TransfoXLTokenizerFast(TensorFlowTensors, PreTrainedTokenizerFast):
    """The vocabulary and nearly always the words of `TransfoXLTokenizer`, with their places in the text.

    It takes the same arguments, reads the same folders and decodes in the same way; batches run on all cores. Counting
    and building vocabularies is left to the other one. A Rust rule cannot copy what it found, so that a few rare texts
    are split in another way: docs/tokenizer.md lists them.

    >>> tokenizer = TransfoXLTokenizerFast(symbols=["<unk>", "<eos>", "Do", "n't", "panic", "!"])
    >>> tokenizer.decode(tokenizer.encode("panic!"))
    'panic!'
    """

    vocab_files_names = TransfoXLTokenizer.vocab_files_names
    padding_side = "left"

    def __init__(self, *args: Any, tokenizer_file: str | None = None, **kwargs: Any) -> None:
        self._exact = TransfoXLTokenizer(*args, **kwargs)
        # The file for the Rust library holds nothing that the vocabulary and the settings do not say.
        super().__init__(tokenizer_object=rust_tokenizer(self._exact), **self._exact.init_kwargs)

    @classmethod
    def convert_to_native_format(cls, **kwargs: Any) -> dict[str, Any]:
        """What `from_pretrained` gives to the constructor."""
        return TransfoXLTokenizer.convert_to_native_format(**kwargs)

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of the tokens, with punctuation in place."""
        return self._exact.convert_tokens_to_string(tokens)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write the vocabulary into a folder, as `TransfoXLTokenizer` does."""
        return self._exact.save_vocabulary(save_directory, filename_prefix)

    def _save_pretrained(
        self,
        save_directory: Any,
        file_names: tuple[str, ...],
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
    ) -> tuple[str, ...]:
        saved = super()._save_pretrained(save_directory, file_names, legacy_format, filename_prefix)
        return saved + self.save_vocabulary(save_directory, filename_prefix)

    def _add_tokens(self, new_tokens: list[str | AddedToken], special_tokens: bool = False) -> int:
        self._exact.add_tokens(new_tokens, special_tokens=special_tokens)
        return super()._add_tokens(new_tokens, special_tokens)

    def _decode(self, token_ids: int | list[int], *args: Any, **kwargs: Any) -> str:
        return self._exact._decode(token_ids, *args, **kwargs)


def rust_tokenizer(tokenizer: TransfoXLTokenizer) -> Tokenizer:
    """A tokenizer of the Rust library with the vocabulary of another one, and rules that come close to its rules."""
    rust = Tokenizer(models.WordLevel(tokenizer.get_vocab(), unk_token=str(tokenizer.unk_token)))
    first = [normalizers.Lowercase()] if tokenizer.lower_case else []
    if tokenizer.already_split:
        rust.normalizer = normalizers.Sequence([*first, normalizers.Replace("\n", f" {tokenizer.eos_token} ")])
        rust.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    elif tokenizer.delimiter == "":
        rust.normalizer = normalizers.Sequence([*first, normalizers.Strip()])
        rust.pre_tokenizer = pre_tokenizers.Split(Regex("(?m:.)"), "isolated")
    else:
        rules = MosesRules(tokenizer.language)
        plain, words = (
            [normalizers.Replace(Regex(pattern), text) for pattern, text in replacements]
            for replacements in (rules.plain_punctuation(), rules.words())
        )
        strip = normalizers.Strip()
        rust.normalizer = normalizers.Sequence([*first, strip, *plain, strip, *words])
        isolated = pre_tokenizers.Split(Regex(rules.isolated()), "isolated")
        rust.pre_tokenizer = pre_tokenizers.Sequence([isolated, pre_tokenizers.WhitespaceSplit()])
    return rust


class MosesRules:
    """The rules of sacremoses for one language, in the order in which they apply, without references to groups."""

    def __init__(self, language: str) -> None:
        self.language = language
        moses = sacremoses.MosesTokenizer(language)
        self.letter = _character_class(moses.IsAlpha)
        self.number = _character_class(moses.IsN)
        self.small = _character_class(moses.IsLower)
        self.letter_or_number = _character_class(moses.IsAlnum)
        self.of_a_word = self.letter_or_number + "\\-.,'`"
        self.prefixes = [re.escape(word) for word in moses.NONBREAKING_PREFIXES if not moses.has_numeric_only(word)]
        self.prefixes_of_numbers = [re.escape(word) for word in moses.NUMERIC_ONLY_PREFIXES]

    def plain_punctuation(self) -> list[tuple[str, str]]:
        """Patterns and replacements that bring quotes, dashes and spaces into their plain forms."""
        found = sacremoses.MosesPunctNormalizer(self.language).substitutions
        rules = [rule for pattern, text in found for rule in _without_groups(pattern, text)]
        # One pass for neighbours that put in the same.
        return [("|".join(pattern for pattern, _ in same), text) for text, same in groupby(rules, lambda rule: rule[1])]

    def words(self) -> list[tuple[str, str]]:
        """Patterns and replacements that put spaces and marks between words."""
        return [
            (r"[\x09-\x0d\x1c-\x1f]", " "),
            (r"[\x00-\x08\x0e-\x1b]", ""),
            ("@", " @ "),
            (rf"-(?<=[{self.letter_or_number}]-)(?=[{self.letter_or_number}])", " @-@ "),
            (rf",(?<=[^{self.number}],)|,(?=[^{self.number}]|$)", " , "),
            *self._apostrophes(),
            (self._period_that_ends_a_sentence(), " ."),
            (r"\.' ?$", " . ' "),
            (r",(?<=\d,)(?=\d)", " @,@ "),
            (r"\.(?<=\d\.)(?=\d)", " @.@ "),
        ]

    def isolated(self) -> str:
        """The pattern of what stands alone: several dots, and each sign that is no part of a word or of a mark."""
        return rf"\.{{2,}}|(?!@[-,.]@)(?<!@[-,.])[^\s{self.of_a_word}]"

    def _apostrophes(self) -> list[tuple[str, str]]:
        letter, number = self.letter, self.number
        if self.language not in ("en", "fr", "it"):
            return [("'", " ' ")]
        before = f"{letter}{number}" if self.language == "en" else letter
        alone = (
            rf"'(?<=[^{letter}]')(?=[^{letter}])",
            rf"'(?<=[^{before}]')(?=[{letter}])",
            rf"'(?<=[{letter}]')(?=[^{letter}])",
        )
        # The letter between two apostrophes belongs to the first one.
        between = rf"'(?<=[{letter}]')(?<![{letter}]'[{letter}]')(?=[{letter}])"
        if self.language == "en":
            return [("|".join(alone), " ' "), (between, " '"), (rf"'(?<=[{number}]')(?=s)", " '")]
        return [("|".join(alone), " ' "), (between, "' ")]

    def _period_that_ends_a_sentence(self) -> str:
        """A period behind a word, unless that is a known prefix, has a period inside, or goes on in small letters."""
        word, letter = f"[{self.of_a_word}]", f"[{self.letter}]"
        start = rf"(?:^|[^{self.of_a_word}])"
        before_number = rf"(?!(?<={start}(?:{'|'.join(self.prefixes_of_numbers)})\.)\s+[0-9])"
        return (
            rf"\.(?=[^{self.of_a_word}]|$)(?!\s+[{self.small}])"
            rf"(?<={word}\.)(?<!\.\.)"
            rf"(?<!{start}(?:{'|'.join(self.prefixes)})\.)"
            rf"(?<!(?:\.{word}*{letter}|{letter}{word}*\.){word}*\.)"
            f"{before_number if self.prefixes_of_numbers else ''}"
        )


def _character_class(characters: str) -> str:
    """The inside of a bracket expression that matches these characters."""
    codes = sorted(set(map(ord, characters)))
    runs = [list(run) for _, run in groupby(enumerate(codes), lambda pair: pair[1] - pair[0])]
    return "".join(rf"\x{{{run[0][1]:x}}}-\x{{{run[-1][1]:x}}}" for run in runs)


def _without_groups(pattern: str, replacement: str) -> list[tuple[str, str]]:
    """The rules that do the work of a rule of sacremoses, but look at what it copies out of the text."""
    if pattern == DIGITS_AROUND_A_SPACE:
        return [("(?<=\\d)\u00a0(?=\\d)", "," if "," in replacement else ".")]
    return RULES_WITHOUT_GROUPS.get(pattern, [(pattern, replacement)])
