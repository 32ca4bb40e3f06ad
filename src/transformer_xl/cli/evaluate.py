"""`transformer-xl evaluate`: how well a model predicts a text."""

from __future__ import annotations

import argparse

SENTENCE = "Score a text with a model: every symbol but the first is predicted once, in order, with carried memory."


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the protocol."""
    parser.add_argument("out", metavar="OUT", help="folder that training wrote")
    parser.add_argument(
        "text",
        metavar="TEXT",
        help="a UTF-8 file, or builtin:shakespeare for its last 5 %%, which training never reads",
    )
    parser.add_argument("--target-length", type=int, metavar="N", help="symbols read in one pass (as in training)")
    parser.add_argument(
        "--memory-length",
        type=int,
        metavar="N",
        nargs="+",
        help="past symbols that are remembered; several lengths give a table (as in training)",
    )
    parser.add_argument(
        "--clamp-length",
        type=int,
        metavar="N",
        default=-1,
        help="distance from which on all are equally far (no limit)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        default=1,
        help="streams read side by side; each begins without a past, so 1 is exact (%(default)s)",
    )


def run(options: argparse.Namespace) -> None:
    """Prints a table with one line for each memory length."""
    from transformer_xl.data.corpus import read_text

    text = read_text(options.text, "test")

    from transformer_xl.evaluation import Protocol, evaluate, score_table
    from transformer_xl.training.run_folder import load_run

    model, vocabulary = load_run(options.out)
    config = model.config
    protocols = [
        Protocol(
            config.tgt_len if options.target_length is None else options.target_length,
            memory_length,
            options.clamp_length,
            config.same_length,
            options.batch_size,
        )
        for memory_length in options.memory_length or [config.mem_len]
    ]
    ids = vocabulary.encode(text)
    table = score_table([evaluate(model, ids, protocol) for protocol in protocols], vocabulary.unit)
    print(f"{options.text}: {len(ids):,} symbols, {vocabulary.count_unknown(ids):,} of them unknown\n{table}")
