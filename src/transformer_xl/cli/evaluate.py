"""`transformer-xl evaluate`: how well a model predicts a text."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformer_xl.data.datasets import Split
    from transformer_xl.data.segments import SegmentStream
    from transformer_xl.evaluation import DynamicEvaluation, Protocol, TextCounts
    from transformer_xl.text.tokenizer_vocabulary import TokenizerVocabulary
    from transformer_xl.text.vocabulary import Ids, Vocabulary

SENTENCE = "Score a text with a model: every symbol is predicted once, in order, with carried memory."


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the protocol."""
    parser.add_argument("out", metavar="OUT", help="folder that training wrote")
    parser.add_argument(
        "text",
        metavar="TEXT",
        help="a UTF-8 file, builtin:shakespeare (its last 5 %%, which training never reads), or the folder of an "
        "encoded corpus, such as OUT/corpus",
    )
    parser.add_argument(
        "--split",
        choices=("train", "valid", "test"),
        default="test",
        help="part of the built-in text or of a corpus (%(default)s)",
    )
    parser.add_argument(
        "--protocol",
        metavar="NAME",
        help="the lengths of the paper: wt103-base, wt103-large, enwik8-base, enwik8-large, text8-base, text8-large or "
        "lm1b; the options below go before (those of training)",
    )
    for name, sentence in (
        ("--target-length", "symbols read in one pass"),
        ("--memory-length", "past symbols that are remembered"),
        ("--clamp-length", "distance from which on all are equally far, -1 for no limit"),
    ):
        parser.add_argument(name, type=int, metavar="N", nargs="+", help=f"{sentence}; several make a table")
    parser.add_argument(
        "--same-length", action=argparse.BooleanOptionalAction, help="every symbol sees equally many others, or not"
    )
    parser.add_argument(
        "--extended-length", type=int, metavar="N", help="symbols before each pass that are read again (as in training)"
    )
    parser.add_argument(
        "--temperature", type=float, metavar="X", default=1.0, help="above 1 the model is less sure (%(default)s)"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        default=1,
        help="streams read side by side; each begins without a past, so 1 is exact (%(default)s)",
    )
    parser.add_argument(
        "--side-by-side",
        type=int,
        metavar="N",
        default=1,
        help="stretches of one stream read side by side, for speed: each first reads again what it depends on, and the "
        "score stays that of one stream (%(default)s)",
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help="put no line end before the text; its first symbol is then not scored",
    )
    parser.add_argument(
        "--picture", metavar="FILE", help="draw the table into this file, such as sweep.png (needs matplotlib)"
    )
    _add_dynamic_options(parser)


def _add_dynamic_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "dynamic evaluation", "The model learns from the text while it is scored, which the printed protocol says."
    )
    group.add_argument("--dynamic", choices=("sgd", "rms"), help="rule of learning; rms needs --training-text")
    group.add_argument("--learning-rate", type=float, metavar="X", help="size of the steps")
    group.add_argument(
        "--decay", type=float, metavar="X", help="how far the weights go back after each segment, from 0 to 1 (0)"
    )
    group.add_argument("--epsilon", type=float, metavar="X", help="what keeps the steps of rms finite (0.001)")
    group.add_argument("--training-text", metavar="TEXT", help="text whose gradients scale the steps of rms")


def run(options: argparse.Namespace) -> None:
    """Prints a table with one line for each combination of lengths, and draws it if there is a file for that."""
    from transformer_xl.evaluation import Protocol, evaluate, paper_protocol, score_table, sweep
    from transformer_xl.evaluation.pictures import check_picture, draw_sweep
    from transformer_xl.training.run_folder import load_run

    if options.picture:
        check_picture(options.picture)
    model, vocabulary = load_run(options.out)
    text = _read(options.text, options.split, vocabulary)
    config = model.config
    if options.protocol is None:
        lengths = Protocol(
            config.tgt_len, config.mem_len, config.clamp_len, config.same_length, extended_length=config.ext_len
        )
    else:
        lengths = paper_protocol(options.protocol)
    protocol = Protocol(
        lengths.target_length,
        lengths.memory_length,
        lengths.clamp_length,
        lengths.same_length if options.same_length is None else options.same_length,
        options.batch_size,
        None if options.plain else text.begin,
        _dynamic(options),
        lengths.extended_length if options.extended_length is None else options.extended_length,
        options.temperature,
    )
    training = _read(options.training_text, "train", vocabulary) if options.training_text else None
    scores = [
        evaluate(
            model,
            text.cut(each),
            each,
            counts=text.counts,
            side_by_side=options.side_by_side,
            training_text=None if training is None else training.ids,
        )
        for each in sweep(protocol, options.target_length, options.memory_length, options.clamp_length)
    ]
    print(f"{options.text}: {len(text.ids):,} symbols, {vocabulary.count_unknown(text.ids):,} of them unknown")
    print(score_table(scores, vocabulary.unit))
    if options.picture:
        draw_sweep(scores, vocabulary.unit, options.picture)


@dataclass(frozen=True)
class _Text:
    """What there is to score: its ids, the token before it or its pieces, and how it is cut for a protocol."""

    ids: Ids
    begin: int | None
    counts: TextCounts | None
    cut: Callable[[Protocol], Ids | SegmentStream]


def _read(source: str, split: Split, vocabulary: Vocabulary | TokenizerVocabulary) -> _Text:
    from transformer_xl.data.corpus import is_corpus, open_corpus, read_text
    from transformer_xl.data.segments import Documents, Sentences
    from transformer_xl.evaluation import TextCounts

    if not is_corpus(source):
        text = read_text(source, split)
        ids = vocabulary.encode(text)
        return _Text(ids, vocabulary.line_end_id, TextCounts.of(text), lambda protocol: ids)
    corpus = open_corpus(source)
    manifest = corpus.manifest
    assert manifest is not None
    if manifest.vocab_size != len(vocabulary):
        raise ValueError(
            f"the corpus {source!r} has {manifest.vocab_size:,} symbols, but the model knows {len(vocabulary):,}: give "
            "a corpus that was encoded with the model's vocabulary"
        )
    ids, counted = corpus.ids(split), manifest.splits[split]
    counts = TextCounts(counted.characters, counted.bytes, counted.words) if counted.bytes else None
    if split not in corpus.starts:
        return _Text(ids, manifest.begin, counts, lambda protocol: ids)
    kind = Sentences if manifest.stream == "sentences" else Documents
    starts = corpus.starts[split]
    return _Text(
        ids,
        manifest.begin,
        counts,
        lambda protocol: kind(ids, starts, protocol.batch_size, protocol.target_length, begin=protocol.begin),
    )


def _dynamic(options: argparse.Namespace) -> DynamicEvaluation | None:
    from transformer_xl.evaluation import DynamicEvaluation

    given = {
        name: getattr(options, name)
        for name in ("learning_rate", "decay", "epsilon")
        if getattr(options, name) is not None
    }
    if options.dynamic is None:
        if given or options.training_text:
            raise ValueError("--learning-rate, --decay, --epsilon and --training-text belong to --dynamic: give it too")
        return None
    if "learning_rate" not in given:
        raise ValueError("--dynamic needs --learning-rate: choose one on a validation text")
    return DynamicEvaluation(rule=options.dynamic, **given)
