"""`transformer-xl convert`: from an old model to a folder of this library."""

from __future__ import annotations

import argparse
import json
from typing import Any

SENTENCE = "Write a model of another program as a folder of this library, without running anything in its files."


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of converting."""
    parser.add_argument("source", metavar="SOURCE", help="old folder, file or prefix of a checkpoint")
    parser.add_argument("out", metavar="OUT", help="folder for the model; it must be new or empty")
    parser.add_argument(
        "--kind", help="what the source is: legacy-hf, original-torch, nvidia or original-tf (it is looked at)"
    )
    parser.add_argument(
        "--vocabulary", metavar="FILE", help="vocabulary to use (the one that is found with the source)"
    )
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a field of the configuration, as mem_len=1600; may be repeated (what the source says)",
    )


def run(options: argparse.Namespace) -> None:
    """Converts, and says what was found, changed and dropped."""
    changes = dict(map(_change, options.set))
    from transformer_xl.conversion.convert import convert

    print(convert(options.source, options.out, options.kind, options.vocabulary, changes))
    print(f"{options.out}: written")


def _change(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name.isidentifier():
        raise ValueError(f"--set got {text!r}: give a name and a value, as mem_len=1600")
    try:
        return name, json.loads(value.lower() if value in ("True", "False") else value)
    except ValueError:
        return name, value
