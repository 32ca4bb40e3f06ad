from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from transformer_xl.text.tokenizer import TransfoXLTokenizer

GOLDEN_FILES = sorted((Path(__file__).resolve().parents[1] / "golden").glob("legacy_hf_tokenizer_*.json"))
GROUPS: list[Any] = [
    pytest.param(
        group, id=f"{path.stem.removeprefix('legacy_hf_tokenizer_')}-{'-'.join(map(str, group['settings'].values()))}"
    )
    for path in GOLDEN_FILES
    for group in json.loads(path.read_text(encoding="utf-8"))
]


def tokenizer_of(group: dict[str, Any]) -> TransfoXLTokenizer:
    return TransfoXLTokenizer(symbols=group["symbols"], **group["settings"])


@pytest.mark.parametrize("group", GROUPS)
def test_splits_like_transformers_4(group):
    tokenizer = tokenizer_of(group)
    for case in group["cases"]:
        assert tokenizer.tokenize(case["text"]) == case["tokens"]


@pytest.mark.parametrize("group", GROUPS)
def test_numbers_like_transformers_4(group):
    tokenizer = tokenizer_of(group)
    for case in group["cases"]:
        assert tokenizer.encode(case["text"]) == case["ids"]


@pytest.mark.parametrize("group", [group for group in GROUPS if group.values[0]["settings"].get("delimiter") is None])
def test_joins_and_decodes_like_transformers_4(group):
    tokenizer = tokenizer_of(group)
    for case in group["cases"]:
        assert tokenizer.convert_tokens_to_string(case["tokens"]) == case["joined"]
        assert tokenizer.decode(case["ids"]) == case["decoded"]
        without = tokenizer.decode(case["ids"], skip_special_tokens=True)
        assert without == case["decoded_without_special_tokens"]
