"""The command `transformer-xl`: its verbs, and what becomes of a user's mistake."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from transformer_xl.cli import convert, encode, evaluate, generate, train
from transformer_xl.training.stopping import Stopped, is_first_process

NAME = "transformer-xl"
VERBS = {"encode": encode, "train": train, "evaluate": evaluate, "generate": generate, "convert": convert}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{NAME}: error: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of a command: 0, 2 after a user's mistake, 130 after Ctrl-C, 143 after SIGTERM."""
    options = _parser().parse_args(arguments)
    try:
        VERBS[options.verb].run(options)
    except (ValueError, OSError, FloatingPointError) as error:
        if isinstance(error, BrokenPipeError):
            return _after_broken_pipe()
        print(f"{NAME}: error: {error}", file=sys.stderr)
        return 2
    except Stopped as stop:
        if is_first_process():
            print(f"\n{NAME}: {stop}", file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt as interrupt:
        print(f"\n{NAME}: {interrupt or 'stopped'}", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=NAME, description="Train a Transformer-XL on a text, measure it and let it write.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        sentence = verb.SENTENCE
        verb.add_options(verbs.add_parser(name, help=sentence, description=sentence, allow_abbrev=False))
    return parser


def _after_broken_pipe() -> int:
    # Whoever reads the output has left, as `head` does; Python would complain once more when it closes stdout.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
