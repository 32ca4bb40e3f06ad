"""The verb `convert`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from transformer_xl.cli import convert

SOURCE = Path(__file__).parents[1] / "golden" / "conversion" / "tf_wt103_large"


def run(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    convert.add_options(parser)
    convert.run(parser.parse_args(arguments))


def test_it_says_what_it_did_and_sets_what_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    run(str(SOURCE), str(out), "--kind", "original-tf", "--set", "mem_len=6", "--set", "same_length=True")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"found: the checkpoint of TensorFlow '{SOURCE}/model.ckpt-1'"
    assert lines[-1] == f"{out}: written"
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert (config["mem_len"], config["same_length"], config["clamp_len"]) == (6, True, 1000)


def test_a_setting_needs_a_name_and_a_value(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give a name and a value"):
        run(str(SOURCE), str(tmp_path / "out"), "--set", "mem_len")
