"""TransfoXLTokenizer: words and their ids, as in transformers 4.37 and the authors' `Vocab`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import AddedToken, BatchEncoding, PreTrainedTokenizer

from transformer_xl.text import vocabulary_files
from transformer_xl.text.moses import Moses
from transformer_xl.text.tensors import TensorFlowTensors

FORMULA = ["<formula>"]
SENTENCE_BORDER = "<S>"
UNKNOWN_SYMBOLS = ("<UNK>", "<unk>")
SETTINGS_OF_OLD_FILES = {
    "special",
    "min_freq",
    "max_size",
    "lower_case",
    "delimiter",
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
    "additional_special_tokens",
    "language",
    "already_split",
}


class TransfoXLTokenizer(TensorFlowTensors, PreTrainedTokenizer):
    """Splits text into words and numbers them; what the vocabulary does not hold becomes `<unk>`.

    Raw text goes through the Moses scripts (`moses_pipeline`) and comes back through them. Text that is already split,
    like that of WikiText and Penn Treebank, is split on white space only with `already_split=True`; a line end is
    then `<eos>`, in both directions. With `delimiter=""` each character is a symbol.

    Args:
        special: Symbols that come first in a vocabulary that is built from counts.
        min_freq: A symbol that was counted less often is left out.
        max_size: So many symbols are kept, the most frequent ones; None for all.
        lower_case: Whether text is put into small letters first.
        delimiter: None for words, `""` for characters.
        vocab_file: A vocabulary as text, a symbol at the start of each line.
        pretrained_vocab_file: A vocabulary that `save_pretrained` wrote, here (`vocab.json`) or in transformers 4
            (`vocab.pkl`, `vocab.bin`; nothing in them is executed).
        never_split: Tokens that stay whole; None for all special tokens.
        unk_token: Stands for every symbol that is not in the vocabulary.
        eos_token: The end of a line or of a text.
        additional_special_tokens: More tokens that are never split and that decoding can leave out.
        language: The language of the Moses scripts.
        already_split: Whether text comes split into words, by white space.
        symbols: A vocabulary in the order of its ids, in place of a file.
        counts: How often each symbol was counted.

    >>> tokenizer = TransfoXLTokenizer()
    >>> tokenizer.count_sents([tokenizer.tokenize("Don't panic, don't!")])
    >>> tokenizer.build_vocab()
    >>> tokenizer.decode(tokenizer.encode("Don't panic!"))
    "Don't panic!"
    """

    vocab_files_names = {
        "pretrained_vocab_file": "vocab.json",
        "vocab_file": "vocab.txt",
        "pretrained_vocab_file_pickle": "vocab.pkl",
        "pretrained_vocab_file_torch": "vocab.bin",
        "vocab_counts_file": "vocab_counts.json",
    }
    model_input_names = ["input_ids", "attention_mask"]
    padding_side = "left"

    def __init__(
        self,
        special: Sequence[str] | None = None,
        min_freq: int = 0,
        max_size: int | None = None,
        lower_case: bool = False,
        delimiter: str | None = None,
        vocab_file: str | Path | None = None,
        pretrained_vocab_file: str | Path | None = None,
        never_split: Sequence[str] | None = None,
        unk_token: str | AddedToken = "<unk>",
        eos_token: str | AddedToken = "<eos>",
        additional_special_tokens: Sequence[str | AddedToken] = FORMULA,
        language: str = "en",
        *,
        already_split: bool = False,
        symbols: Sequence[str] | None = None,
        counts: Mapping[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        self.special = list(special or ())
        self.min_freq = min_freq
        self.max_size = max_size
        self.lower_case = lower_case
        self.delimiter = delimiter
        self.vocab_file = vocab_file
        self.language = language
        self.already_split = already_split
        self.counter: Counter[str] = Counter(counts)
        self.idx2sym: list[str] = []
        self.sym2idx: dict[str, int] = {}
        self._moses = Moses(language)
        file = vocab_file or pretrained_vocab_file
        if symbols is None and file:
            symbols = vocabulary_files.read_symbols(file)
        self._append(symbols or ())
        if str(unk_token) not in self.sym2idx:
            unk_token = next((symbol for symbol in UNKNOWN_SYMBOLS if symbol in self.sym2idx), unk_token)
        if list(additional_special_tokens) != FORMULA:
            kwargs["extra_special_tokens"] = additional_special_tokens
        kwargs.setdefault("extra_special_tokens", FORMULA)
        # Raw text as in transformers 4; text that is split on white space comes back as it was.
        kwargs.setdefault("clean_up_tokenization_spaces", not already_split)
        super().__init__(
            special=special,
            min_freq=min_freq,
            max_size=max_size,
            lower_case=lower_case,
            delimiter=delimiter,
            never_split=never_split,
            unk_token=unk_token,
            eos_token=eos_token,
            language=language,
            already_split=already_split,
            **kwargs,
        )
        self.never_split = self.all_special_tokens if never_split is None else list(never_split)
        if self._ids_collide():
            self._renumber_added_tokens()

    @classmethod
    def convert_to_native_format(cls, **kwargs: Any) -> dict[str, Any]:
        """What `from_pretrained` gives to the constructor; an old pickle adds the settings that nobody else gave."""
        counts = kwargs.pop("vocab_counts_file", None)
        pickles = kwargs.pop("pretrained_vocab_file_pickle", None), kwargs.pop("pretrained_vocab_file_torch", None)
        if counts:
            kwargs["counts"] = vocabulary_files.read_counts(counts)
        own, text = kwargs.get("pretrained_vocab_file"), kwargs.get("vocab_file")
        if own and text and Path(own).parent == Path(text).parent:
            kwargs["vocab_file"] = None  # the same symbols, written for transformers 4
        if own or text:
            return kwargs
        pickle = next(filter(None, pickles), None)
        if pickle is None:
            raise FileNotFoundError(
                f"{kwargs['name_or_path']!r} holds no vocabulary: "
                "give a folder with a vocab.json, vocab.txt, vocab.pkl or vocab.bin"
            )
        legacy = vocabulary_files.read_legacy_vocabulary(pickle)
        given = kwargs.keys() | ({"additional_special_tokens"} if "extra_special_tokens" in kwargs else set())
        settings = {name: legacy.settings[name] for name in (SETTINGS_OF_OLD_FILES - given) & legacy.settings.keys()}
        if not kwargs.get("added_tokens_decoder"):
            kwargs["added_tokens_decoder"] = {
                index: AddedToken(token, normalized=False)
                for token, index in legacy.settings.get("added_tokens", {}).items()
            }
        return {**settings, **kwargs, "symbols": legacy.symbols, "counts": legacy.counts}

    def __getattr__(self, name: str) -> Any:
        """Also the ids of special symbols under their old names: `eos_idx`, `unk_idx`, `S_idx`."""
        if name.endswith("_idx"):
            index = self._find(str(self.unk_token) if name == "unk_idx" else f"<{name.removesuffix('_idx')}>")
            if index is not None:
                return index
        return super().__getattr__(name)

    # The vocabulary

    @property
    def vocab_size(self) -> int:
        """The number of symbols in the vocabulary, added tokens outside it not counted."""
        return len(self.idx2sym)

    @property
    def do_lower_case(self) -> bool:
        """Whether text is put into small letters first; transformers asks under this name."""
        return self.lower_case

    @property
    def additional_special_tokens(self) -> list[str]:
        """The special tokens besides the named ones; transformers 5 calls them `extra_special_tokens`."""
        tokens: list[str] = self.extra_special_tokens
        return tokens

    @additional_special_tokens.setter
    def additional_special_tokens(self, tokens: Sequence[str | AddedToken]) -> None:
        self._extra_special_tokens = list(tokens)

    @property
    def additional_special_tokens_ids(self) -> list[int]:
        """The ids of `additional_special_tokens`."""
        ids: list[int] = self.extra_special_tokens_ids
        return ids

    def get_vocab(self) -> dict[str, int]:
        """The id of each symbol and of each added token."""
        return {**self.sym2idx, **self._added_tokens_encoder}

    def count_file(self, path: str | Path, verbose: bool = False, add_eos: bool = False) -> list[list[str]]:
        """Count the symbols of a text file; the symbols of each line come back."""
        sentences = [self.tokenize(line, add_eos=add_eos) for line in _lines(path, verbose)]
        self.count_sents(sentences)
        return sentences

    def count_sents(self, sents: Iterable[Sequence[str]], verbose: bool = False) -> None:
        """Count the symbols of sentences that are already split into symbols."""
        for symbols in tqdm(sents, disable=not verbose):
            self.counter.update(symbols)

    def build_vocab(self) -> None:
        """Number the symbols of `vocab_file` if there is one, else what was counted: `special`, then by frequency."""
        if self.vocab_file:
            self.build_vocab_from_file(self.vocab_file)
            return
        counted = (symbol for symbol, count in self.counter.most_common(self.max_size) if count >= self.min_freq)
        self._replace(chain(self.special, counted))

    def build_vocab_from_file(self, vocab_file: str | Path) -> None:
        """Number the symbols of a vocabulary file in their order there."""
        self._replace(vocabulary_files.read_symbols(vocab_file))

    def add_symbol(self, sym: str) -> None:
        """Put a symbol behind the last one of the vocabulary; added tokens outside it move up."""
        self._append([sym])
        self._renumber_added_tokens()

    def add_special(self, sym: str) -> None:
        """Put a symbol behind the last one of the vocabulary; the id of `<eos>` is then also known as `eos_idx`."""
        self.add_symbol(sym)

    def move_added_token(self, token: str, target_idx: int) -> None:
        """Give an added token a place in the vocabulary; the symbols from there on move up by one.

        This is for models whose embedding was enlarged elsewhere than at its end: in a band of `AdaptiveEmbedding`.
        """
        if token not in self._added_tokens_encoder:
            raise ValueError(f"the token {token!r} is no added token: add it with add_tokens first")
        if token in self.sym2idx:
            raise ValueError(f"the token {token!r} is in the vocabulary already, with the id {self.sym2idx[token]}")
        if not 0 <= target_idx <= len(self.idx2sym):
            raise ValueError(f"target_idx is {target_idx}, but may be 0 to {len(self.idx2sym)}")
        self._replace([*self.idx2sym[:target_idx], token, *self.idx2sym[target_idx:]])

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write the vocabulary into a folder; the paths of the files come back.

        `vocab.json` holds it whole; `vocab.txt`, which transformers 4 reads, is written where no symbol has white space
        in it; `vocab_counts.json` holds the counts if anything was counted.
        """
        folder = Path(save_directory)
        if not folder.is_dir():
            raise FileNotFoundError(f"{str(save_directory)!r} is not a folder: make it first, or use save_pretrained")
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        names = [self.vocab_files_names["pretrained_vocab_file"]]
        if vocabulary_files.fits_into_lines(self.idx2sym):
            names.append(self.vocab_files_names["vocab_file"])
        paths = [folder / f"{prefix}{name}" for name in names]
        for path in paths:
            vocabulary_files.write_symbols(self.idx2sym, path)
        if self.counter:
            paths.append(folder / f"{prefix}{self.vocab_files_names['vocab_counts_file']}")
            vocabulary_files.write_counts(self.counter, paths[-1])
        return tuple(map(str, paths))

    def _replace(self, symbols: Iterable[str]) -> None:
        """A new vocabulary, behind which the added tokens that are not in it are numbered."""
        symbols = list(symbols)
        self.idx2sym.clear()
        self.sym2idx.clear()
        self._append(symbols)
        self._renumber_added_tokens()

    def _append(self, symbols: Iterable[str]) -> None:
        for symbol in symbols:
            if symbol not in self.sym2idx:
                self.sym2idx[symbol] = len(self.idx2sym)
                self.idx2sym.append(symbol)

    def _ids_collide(self) -> bool:
        """Whether an added token has the id of another symbol, or another id than the vocabulary gives it."""
        return any(
            self.sym2idx.get(token.content, index) != index
            or (index < len(self.idx2sym) and self.idx2sym[index] != token.content)
            for index, token in self._added_tokens_decoder.items()
        )

    def _renumber_added_tokens(self) -> None:
        """Give each added token the id that it has in the vocabulary, or the next one behind it."""
        tokens = [token for _, token in sorted(self._added_tokens_decoder.items())]
        self._added_tokens_decoder.clear()
        self._added_tokens_encoder.clear()
        next_index = len(self.idx2sym)
        for token in tokens:
            index = self.sym2idx.get(token.content, next_index)
            next_index += index == next_index
            self._added_tokens_decoder[index] = token
            self._added_tokens_encoder[token.content] = index
        self._update_total_vocab_size()

    def _update_total_vocab_size(self) -> None:
        outside = sum(token not in self.sym2idx for token in self._added_tokens_encoder)
        self.total_vocab_size = len(self.idx2sym) + outside

    # From text to ids

    def tokenize(  # type: ignore[override]  # as in transformers 4; a second text is not looked at there either
        self, text: str, add_eos: bool = False, add_double_eos: bool = False, **kwargs: Any
    ) -> list[str]:
        """The symbols of a text, with `<eos>` behind them or, for One Billion Words, `<S>` on both sides."""
        if self.lower_case:
            text = self._to_lower_case(text)
        if self.already_split:
            symbols = text.replace("\n", f" {self.eos_token or ''} ").split()
        elif any(token in text for token in self._added_tokens_encoder):
            symbols = super().tokenize(text, **kwargs)
        else:
            symbols = self._tokenize(text)
        if add_double_eos:
            return [SENTENCE_BORDER, *symbols, SENTENCE_BORDER]
        return [*symbols, self.eos_token] if add_eos else symbols

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return list(text.strip()) if self.delimiter == "" else self.moses_pipeline(text.strip())

    def moses_punct_norm(self, text: str) -> str:
        """The text with typographic quotes, dashes and spaces in their plain forms."""
        return self._moses.normalize(text)

    def moses_tokenize(self, text: str) -> list[str]:
        """The words and punctuation marks of a text; the tokens in `never_split` stay whole."""
        return self._moses.split(text, self.never_split)

    def moses_pipeline(self, text: str) -> list[str]:
        """The words of raw text: punctuation made plain, split by the Moses rules, numbers split at their marks.

        >>> TransfoXLTokenizer().moses_pipeline("23,000 people are 1.80 m tall")
        ['23', '@,@', '000', 'people', 'are', '1', '@.@', '80', 'm', 'tall']
        """
        return self._moses.split(self._moses.normalize(text), self.never_split, split_numbers=True)

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The id of a symbol, or the ids of a list of symbols."""
        if tokens is None:
            return None
        if isinstance(tokens, str):
            return self._convert_token_to_id_with_added_voc(tokens)
        # Most symbols are in the vocabulary, which knows the ids of its added tokens too.
        find = self.sym2idx.get
        return [
            self._convert_token_to_id_with_added_voc(token) if index is None else index
            for token, index in zip(tokens, map(find, tokens), strict=True)
        ]

    def encode_file(
        self,
        path: str | Path,
        ordered: bool = False,
        verbose: bool = False,
        add_eos: bool = True,
        add_double_eos: bool = False,
    ) -> Any:
        """The ids of a text file: a list with a tensor for each line, or with `ordered` one tensor of all of them."""
        lines = _lines(path, verbose)
        return self.encode_sents((self.tokenize(line, add_eos, add_double_eos) for line in lines), ordered)

    def encode_sents(self, sents: Iterable[Sequence[str]], ordered: bool = False, verbose: bool = False) -> Any:
        """The ids of sentences that are split into symbols: a list of tensors, or with `ordered` one tensor."""
        sents = tqdm(sents, disable=not verbose)
        if ordered:
            return self.convert_to_tensor(list(chain.from_iterable(sents)))
        return [self.convert_to_tensor(symbols) for symbols in sents]

    def convert_to_tensor(self, symbols: Sequence[str]) -> Any:
        """The ids of symbols as a tensor of 64-bit integers."""
        return BatchEncoding({"ids": self.convert_tokens_to_ids(symbols)}, tensor_type="pt")["ids"]

    def encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> BatchEncoding:
        """The inputs of a model for one text, given as a string, a list of tokens or a list of ids."""
        if not kwargs.get("is_split_into_words"):
            text, text_pair = (
                self.convert_tokens_to_ids(value)
                if isinstance(value, list | tuple) and isinstance(value[0], str)
                else value
                for value in (text, text_pair)
            )
        return self(text, text_pair, **kwargs)

    def batch_encode_plus(self, batch_text_or_text_pairs: Any, **kwargs: Any) -> BatchEncoding:
        """The inputs of a model for several texts, or pairs of texts."""
        return self(batch_text_or_text_pairs, **kwargs)

    def _convert_token_to_id(self, token: str) -> int:
        index = self._find(token)
        if index is None:
            index = self._find(str(self.unk_token))
        if index is None:
            raise ValueError(
                f"the symbol {token!r} is not in the vocabulary: set unk_token, which stands for the unknown"
            )
        return index

    def _find(self, symbol: str) -> int | None:
        return self.sym2idx.get(symbol, self._added_tokens_encoder.get(symbol))

    def _to_lower_case(self, text: str) -> str:
        kept = self.all_special_tokens + [
            token.content for token in self._added_tokens_decoder.values() if not token.special and token.normalized
        ]
        pieces = re.split(f"({'|'.join(map(re.escape, kept))})", text)
        return "".join(piece if index % 2 else "".join(map(str.lower, piece)) for index, piece in enumerate(pieces))

    # From ids to text

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of the tokens: with punctuation in place, or for text that is already split, as it was."""
        if self.delimiter == "":
            return "".join(tokens)
        if not self.already_split:
            return self._moses.join(tokens)
        lines: list[list[str]] = [[]]
        for token in tokens:
            if token == self.eos_token:
                lines.append([])
            else:
                lines[-1].append(token)
        return "\n".join(map(" ".join, lines))

    def _decode(
        self,
        token_ids: int | list[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **kwargs: Any,
    ) -> str:
        """As in transformers 4: tokens that were added outside the vocabulary stand apart from the sentence."""
        ids = [token_ids] if isinstance(token_ids, int) else token_ids
        tokens = self.convert_ids_to_tokens(ids, skip_special_tokens=skip_special_tokens)
        apart = self._added_tokens_encoder.keys() - self.sym2idx.keys() - set(self.special_tokens_map.values())
        if self.already_split:
            apart.clear()
        texts: list[str] = []
        for stands_apart, group in groupby(tokens, apart.__contains__):
            members = list(group)
            texts += members if stands_apart else [self.convert_tokens_to_string(members)]
        text = " ".join(filter(None, texts))
        if clean_up_tokenization_spaces is None:
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
        return self.clean_up_tokenization(text) if clean_up_tokenization_spaces else text

    def _convert_id_to_token(self, index: int) -> str:
        if not 0 <= index < len(self.idx2sym):
            raise ValueError(f"the id {index} is not in the vocabulary, whose ids are 0 to {len(self) - 1}")
        return self.idx2sym[index]


def _lines(path: str | Path, verbose: bool) -> Iterator[str]:
    """The lines of a text file without white space at their ends; `verbose` shows how far it is."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{str(path)!r} is not a file: give a text file in UTF-8")
    with Path(path).open(encoding="utf-8") as lines:
        for line in tqdm(lines, disable=not verbose, unit=" lines"):
            yield line.strip()
