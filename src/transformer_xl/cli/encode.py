"""`transformer-xl encode`: from texts to files of ids that training opens at once."""

from __future__ import annotations

import argparse
import sys
import warnings
from dataclasses import fields
from typing import get_type_hints

from transformer_xl.cli.setting_options import option_name, option_of, settings_of
from transformer_xl.data.text_settings import TextSettings

SENTENCE = "Encode texts once into a folder of ids, which training opens without reading it: train --train OUT."
# What training decides, however the text was encoded.
DECIDED_LATER = ("keep_memory", "varlen", "ext_len")


def add_options(parser: argparse.ArgumentParser) -> None:
    """One option for each setting of the text."""
    parser.add_argument("out", metavar="OUT", help="folder for the corpus; it must be new or empty")
    types = get_type_hints(TextSettings)
    for each in fields(TextSettings):
        if each.name not in DECIDED_LATER:
            parser.add_argument(option_name(each), **option_of(each, types[each.name]))
    parser.add_argument(
        "--strict", action="store_true", help="refuse a known set that does not count what the published one does"
    )


def run(options: argparse.Namespace) -> None:
    """Encodes, and says what was counted."""
    settings = settings_of(TextSettings, vars(options))
    from transformer_xl.data.corpus import encode_corpus

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        corpus = encode_corpus(settings, options.out, show_progress=True, strict=options.strict)
    for warning in caught:
        print(f"transformer-xl: warning: {warning.message}", file=sys.stderr)
    manifest = corpus.manifest
    for split, counts in manifest.splits.items():
        kind = "" if counts.pieces is None else f"{counts.pieces:,} {manifest.stream}, "
        print(f"{split:5}  {kind}{counts.tokens:,} symbols, {counts.unknown:,} of them unknown")
    print(f"{options.out}: {manifest.vocab_size:,} in the vocabulary, ids as {manifest.dtype}")
