"""Writes tests/golden/legacy_hf_tokenizer_*.json: how the tokenizer of transformers 4.37.2 splits and joins text.

Run by the environment that README.md beside this file describes: `python tests/oracles/write_legacy_hf_tokenizer.py`.
The texts are those of tokenizer_lines.txt, lines of Shakespeare out of the built-in corpus, and lines put together at
random of pieces that the rules treat in special ways.
"""

from __future__ import annotations

import json
import lzma
import random
import tempfile
from pathlib import Path
from typing import Any

import transformers
from transformers import TransfoXLTokenizer

ORACLES_FOLDER = Path(__file__).resolve().parent
GOLDEN_FOLDER = ORACLES_FOLDER.parent / "golden"
CORPUS = ORACLES_FOLDER.parents[1] / "src" / "transformer_xl" / "data" / "builtin" / "shakespeare.txt.xz"
SPECIAL_SYMBOLS = ["<eos>", "<unk>"]
SETTINGS: dict[str, dict[str, Any]] = {"lower": {"lower_case": True}, "characters": {"delimiter": ""}, "": {}}
PIECES = (  # noqa: SIM905
    "word Word WORD I a 5 12 1,000 3.14 2019 <unk> <eos> <formula> n't 's '' ' ` `` \" , . .. ... ; : ! ? - -- – — … "
    "( ) [ ] { } < > @ # $ % & * + = / \\ | ~ ^ _ “ ” ‘ ’ „ « » é ß Я 東 😀 € ² Mr. e.g. U.S. No. http://a.b/c x@y.zz"
).split(" ")


def read_lines() -> dict[str, list[str]]:
    """The lines of tokenizer_lines.txt under their headings."""
    groups: dict[str, list[str]] = {}
    for line in (ORACLES_FOLDER / "tokenizer_lines.txt").read_bytes().decode().split("\n"):
        if line.startswith("[") and line.endswith("]") and line[1:3].isalpha() and line[3] in " ]":
            lines = groups.setdefault(line[1:-1], [])
        elif line:
            lines.append(line)
    return groups


def shakespeare(num_lines: int) -> list[str]:
    """Lines out of the built-in corpus, evenly spread."""
    with lzma.open(CORPUS, "rt", encoding="utf-8") as file:
        lines = [line.rstrip("\n") for line in file if line.strip()]
    return lines[:: len(lines) // num_lines][:num_lines]


def random_lines(num_lines: int, generator: random.Random) -> list[str]:
    """Lines of pieces that stand together with and without spaces."""
    return [
        "".join(generator.choice(PIECES) + generator.choice(("", "", " ")) for _ in range(generator.randint(3, 14)))
        for _ in range(num_lines)
    ]


def golden_group(heading: str, lines: list[str]) -> dict[str, Any]:
    """What the tokenizer makes of the lines; its vocabulary is counted on every second one."""
    language, _, name = heading.partition(" ")
    settings = {"language": language, **SETTINGS[name]}
    counting = TransfoXLTokenizer(special=SPECIAL_SYMBOLS, **settings)
    counting.count_sents([counting.tokenize(line) for line in lines[::2]])
    counting.build_vocab()
    with tempfile.TemporaryDirectory() as folder:
        # Only a tokenizer that reads its vocabulary from a file gives each symbol an id of its own.
        vocab_file = Path(folder, "vocab.txt")
        vocab_file.write_text("".join(f"{symbol}\n" for symbol in counting.idx2sym if symbol.strip()), encoding="utf-8")
        tokenizer = TransfoXLTokenizer(vocab_file=str(vocab_file), **settings)
    return {
        "transformers": transformers.__version__,
        "settings": settings,
        "symbols": tokenizer.idx2sym,
        "cases": [
            {
                "text": line,
                "tokens": tokenizer.tokenize(line),
                "ids": tokenizer.encode(line),
                "joined": tokenizer.convert_tokens_to_string(tokenizer.tokenize(line)),
                "decoded": tokenizer.decode(tokenizer.encode(line)),
                "decoded_without_special_tokens": tokenizer.decode(tokenizer.encode(line), skip_special_tokens=True),
            }
            for line in lines
        ],
    }


def main() -> None:
    """Write all files."""
    write("written", read_lines())
    write("shakespeare", {"en": shakespeare(150)})
    write("random", {language: random_lines(80, random.Random(language)) for language in ("en", "fr", "de")})


def write(name: str, groups: dict[str, list[str]]) -> None:
    """Write one file: what comes of each group of lines."""
    content = json.dumps(
        [golden_group(heading, lines) for heading, lines in groups.items()], ensure_ascii=False, indent=0
    )
    (GOLDEN_FOLDER / f"legacy_hf_tokenizer_{name}.json").write_text(content + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
