"""Every Python block of the README and of docs/ runs, in order, in the folder of a small trained model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from transformer_xl.training.loop import train
from transformer_xl.training.settings import ModelSettings, RunSettings, TextSettings, TrainingSettings

ROOT = Path(__file__).parents[1]
ALL_PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PAGES = [path for path in ALL_PAGES if "```python" in path.read_text()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("run") / "OUT"
    settings = RunSettings(
        TextSettings("builtin:shakespeare"),
        ModelSettings(num_layers=2, width=32, num_heads=2, inner_width=32, memory_length=16),
        TrainingSettings(segment_length=16, batch_size=256, steps=3, evaluations=1),
    )
    train(settings, out)
    return out


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated")  # in torch's own export to ONNX
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_examples_run(page, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"folder": str(folder), "__name__": "__main__"}
    for block in re.finditer(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        line = page.read_text()[: block.start()].count("\n") + 1
        exec(compile("\n" * line + block[1], str(page), "exec"), names)
