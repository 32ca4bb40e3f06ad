"""Lines per second of the tokenizer, beside those of transformers 4.37.2 on the same lines.

    python benchmarks/tokenizing.py --peer /tmp/oracles/bin/python [--text FILE --lines 5000]

The peer runs in its own environment (tests/oracles/README.md says which). Each side splits the same lines, one process
after the other, and hands over its tokens; nothing is printed but an error unless they are equal. Our exact tokenizer
is measured twice: on lines that it has not seen, and again with their words remembered. The fast one (Rust) is measured
on a batch with one thread, and what share of the lines it splits in the same way. The last line is JSON, which also
goes to a dated file in `results/`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import lzma
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("RAYON_NUM_THREADS", "1")

import transformer_xl
from transformer_xl.text.fast_tokenizer import TransfoXLTokenizerFast
from transformer_xl.text.tokenizer import TransfoXLTokenizer

RESULTS = Path(__file__).parent / "results"
BUILTIN = Path(transformer_xl.__file__).parent / "data" / "builtin" / "shakespeare.txt.xz"
PEER = """
import json, sys, time
from transformers import TransfoXLTokenizer
lines = json.load(open(sys.argv[1], encoding="utf-8"))
tokenizer = TransfoXLTokenizer()
start = time.perf_counter()
tokens = [tokenizer.tokenize(line) for line in lines]
split = time.perf_counter()
texts = [tokenizer.convert_tokens_to_string(each) for each in tokens]
joined = time.perf_counter()
json.dump({"tokens": tokens, "texts": texts, "split": split - start, "join": joined - split}, open(sys.argv[2], "w"))
"""


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def measure(lines: list[str], peer: Path) -> dict[str, Any]:
    """The row of this machine: lines per second of each program, after their tokens were found equal."""
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder, "lines.json"), Path(folder, "tokens.json")
        given.write_text(json.dumps(lines), encoding="utf-8")
        subprocess.run([peer, "-c", PEER, given, answer], check=True, stderr=subprocess.DEVNULL)
        theirs = json.loads(answer.read_text(encoding="utf-8"))
    tokenizer = TransfoXLTokenizer()
    first, tokens = seconds(lambda: [tokenizer.tokenize(line) for line in lines])
    again, _ = seconds(lambda: [tokenizer.tokenize(line) for line in lines])
    joining, texts = seconds(lambda: [tokenizer.convert_tokens_to_string(each) for each in tokens])
    if tokens != theirs["tokens"] or texts != theirs["texts"]:
        sys.exit("the tokens or texts differ from the peer's: no speed is worth printing")
    tokenizer.count_sents(tokens)
    tokenizer.build_vocab()
    fast = TransfoXLTokenizerFast(symbols=tokenizer.idx2sym)
    batch, encoded = seconds(lambda: fast(lines, add_special_tokens=False)["input_ids"])
    same = sum(ids == tokenizer.convert_tokens_to_ids(each) for ids, each in zip(encoded, tokens, strict=True))
    corpus = TransfoXLTokenizer(already_split=True, symbols=tokenizer.idx2sym)
    split = [" ".join(each) for each in tokens]
    corpus_mode, _ = seconds(lambda: [corpus.convert_tokens_to_ids(corpus.tokenize(line)) for line in split])
    return {
        "lines": len(lines),
        "characters_per_line": round(sum(map(len, lines)) / len(lines), 1),
        "lines_per_second": {
            "peer_split": round(len(lines) / theirs["split"]),
            "exact_split_first_time": round(len(lines) / first),
            "exact_split_again": round(len(lines) / again),
            "fast_encode": round(len(lines) / batch),
            "corpus_mode_encode": round(len(lines) / corpus_mode),
            "peer_join": round(len(lines) / theirs["join"]),
            "exact_join": round(len(lines) / joining),
        },
        "fast_lines_identical": same / len(lines),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True, help="a Python with transformers 4.37.2 and sacremoses")
    parser.add_argument("--text", type=Path, help="a text file in UTF-8; the built-in corpus if left out")
    parser.add_argument("--lines", type=int, default=20_000, help="so many lines that are not blank are taken")
    arguments = parser.parse_args()
    text = (arguments.text.read_bytes() if arguments.text else lzma.decompress(BUILTIN.read_bytes())).decode()
    lines = [line for line in text.split("\n") if line.strip()][: arguments.lines]
    row = {
        "benchmark": "tokenizing",
        "date": datetime.date.today().isoformat(),
        "text": arguments.text.name if arguments.text else "built-in corpus",
        **measure(lines, arguments.peer),
        "threads": 1,
        "versions": {name: version(name) for name in ("sacremoses", "tokenizers", "transformers")},
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    path = RESULTS / f"{row['date']}_tokenizing_{Path(row['text'].replace(' ', '_')).stem}.json"
    if path.exists():
        sys.exit(f"{str(path)!r} exists and results are never overwritten: move it away first")
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(row))


if __name__ == "__main__":
    main()
