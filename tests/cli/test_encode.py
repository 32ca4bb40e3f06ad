from __future__ import annotations

import json

import pytest

from transformer_xl.cli.main import main

from .conftest import SHORT_RUN, SMALL_MODEL


def test_what_was_counted_is_printed(toy_text, tmp_path, capsys):
    out = str(tmp_path / "corpus")
    assert main(["encode", out, "--train", str(toy_text), "--unit", "word", "--stream", "sentences"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train  58 sentences, 812 symbols, 0 of them unknown",
        "valid  2 sentences, 28 symbols, 0 of them unknown",
        f"{out}: 11 in the vocabulary, ids as uint8",
    ]


def test_a_known_set_with_other_counts_is_said(tmp_path, capsys):
    for split in ("train", "valid", "test"):
        (tmp_path / f"ptb.{split}.txt").write_text("a b\n")
    arguments = ["encode", str(tmp_path / "corpus"), "--dataset", "ptb", "--data", str(tmp_path)]
    assert main([*arguments, "--strict"]) == 2
    assert "error: Penn Treebank, train: 3 symbols were counted" in capsys.readouterr().err
    assert main(arguments) == 0
    assert capsys.readouterr().err.count("transformer-xl: warning: Penn Treebank") == 4


@pytest.mark.parametrize("options", [["--unit", "word"], ["--unit", "word", "--stream", "sentences"]], ids=" ".join)
def test_training_opens_what_was_encoded(options, toy_text, tmp_path, capsys):
    assert main(["encode", str(tmp_path / "corpus"), "--train", str(toy_text), *options]) == 0
    out = tmp_path / "out"
    assert main(["train", "--train", str(tmp_path / "corpus"), str(out), *SMALL_MODEL, *SHORT_RUN]) == 0
    assert json.loads((out / "config.json").read_text())["vocab_size"] == 11
    assert f"{out}: validation perplexity" in capsys.readouterr().out
