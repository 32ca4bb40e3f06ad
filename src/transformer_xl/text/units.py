"""Tokenizers of transformers for the units a model may read: characters, bytes, byte pairs and words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from transformer_xl.text.tokenizer import TransfoXLTokenizer

UNKNOWN = "<unk>"
LINE_END = "<eos>"
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))


def character_tokenizer(texts: Iterable[str], min_count: int = 1) -> PreTrainedTokenizerFast:
    """Each character is a symbol, most frequent first; one that occurs in the texts less than `min_count` times is
    `<unk>`.

    >>> tokenizer = character_tokenizer(["to be"])
    >>> tokenizer.decode(tokenizer.encode("be to be"))
    'be to be'
    """
    counts = Counter(character for text in texts for character in text)
    return character_tokenizer_of(_most_frequent_first(counts, min_count, always=[UNKNOWN]))


def character_tokenizer_of(symbols: Sequence[str]) -> PreTrainedTokenizerFast:
    """Each character is a symbol; the symbols, `<unk>` among them, are given in the order of their ids."""
    tokenizer = Tokenizer(models.WordLevel({symbol: index for index, symbol in enumerate(symbols)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"(?m:.)"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=UNKNOWN, padding_side="left", unit="char")


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Each byte of the text's UTF-8 form is a symbol, and its value the id: 256 symbols for every text.

    >>> byte_tokenizer().encode("né")
    [110, 195, 169]
    """
    # A model that knows no character takes all of them apart into bytes.
    ids = {symbol: index for index, symbol in enumerate(BYTES)}
    tokenizer = Tokenizer(models.BPE(ids, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", unit="byte")


def byte_pair_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Pieces of words, trained by joining the most frequent neighbours again and again; nothing is unknown.

    The symbols are `<eos>`, the 256 bytes, and what was joined, up to `vocab_size` in all.

    >>> tokenizer = byte_pair_tokenizer(["the cat and the hat"] * 5, vocab_size=270)
    >>> tokenizer.decode(tokenizer.encode("the hat, unseen"))
    'the hat, unseen'
    """
    least = len(BYTES) + 1
    if vocab_size < least:
        raise ValueError(f"vocab_size is {vocab_size}, but {least} or more are needed: every byte and {LINE_END}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[LINE_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=LINE_END, padding_side="left", unit="bpe")


def word_tokenizer(texts: Iterable[str], min_count: int = 1) -> TransfoXLTokenizer:
    r"""What stands between white space is a symbol, most frequent first, and `<eos>` is a line end.

    A word that occurs in the texts less than `min_count` times is `<unk>`.

    >>> tokenizer = word_tokenizer(["to be or not\nto be\n"])
    >>> tokenizer.decode(tokenizer.encode("not to be\n"))
    'not to be\n'
    """
    tokenizer = TransfoXLTokenizer(already_split=True, additional_special_tokens=[])
    tokenizer.count_sents(_split(texts, tokenizer))
    return word_tokenizer_of(_most_frequent_first(tokenizer.counter, min_count, always=[UNKNOWN, LINE_END]))


def word_tokenizer_of(symbols: Sequence[str], line_end: str = LINE_END, lower_case: bool = False) -> TransfoXLTokenizer:
    """What stands between white space is a symbol; the symbols are given in the order of their ids."""
    return TransfoXLTokenizer(
        lower_case=lower_case,
        eos_token=line_end,
        already_split=True,
        additional_special_tokens=[],
        symbols=symbols,
        unit="word",
    )


def id_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Numbers with white space between them, each its own id, from 0 to `size` - 1.

    >>> id_tokenizer(100).encode("60 62 64")
    [60, 62, 64]
    """
    tokenizer = Tokenizer(models.WordLevel({str(index): index for index in range(size)}))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", unit="id")


def _split(texts: Iterable[str], tokenizer: TransfoXLTokenizer) -> Iterator[list[str]]:
    return (tokenizer.tokenize(text) for text in texts)


def _most_frequent_first(counts: Counter[str], min_count: int, always: Sequence[str]) -> list[str]:
    """The symbols to keep; those that are always there stand where their counts put them, `<unk>` with all the rest."""
    kept = {symbol: count for symbol, count in counts.items() if count >= min_count or symbol in always}
    for symbol in always:
        kept.setdefault(symbol, 0)
    kept[UNKNOWN] += counts.total() - sum(kept.values())
    return sorted(kept, key=lambda symbol: (-kept[symbol], symbol))
