"""The examples run, on small texts that are made here."""

from __future__ import annotations

import gzip
import json
import random
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

# Trainer pins memory unless it is told not to, which only a GPU can use.
pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs an example in a temporary folder, and returns what it printed."""

    def run_example(name: str, *arguments: object) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run_example


def test_every_example_is_short():
    for path in EXAMPLES.glob("*.py"):
        assert path.name == "demo.py" or len(path.read_text(encoding="utf-8").splitlines()) < 40


@pytest.mark.slow
def test_texts_are_classified(run, tmp_path):
    chance = random.Random(0)
    for name, number in (("train.txt", 600), ("test.txt", 100)):
        lines = []
        for _ in range(number):
            label = chance.choice("01")
            words = chance.choices(["film", "plot", "scene", "of", "the", "a"], k=8)
            words[chance.randrange(8)] = chance.choice(["fine", "great"] if label == "1" else ["dull", "bad"])
            lines.append(f"{label} {' '.join(words)}")
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    said = run("trainer_classify", "train.txt", "test.txt", 3)
    assert float(said.splitlines()[-1].split(": ")[1]) > 0.9


@pytest.mark.slow
def test_a_language_model_is_trained_and_adapted_by_lora(run, tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat and the dog lay on the rug.\n" * 400, encoding="utf-8")
    (tmp_path / "other.txt").write_text("the dog sat on the rug and the cat lay on the mat.\n" * 200, encoding="utf-8")
    said = run("trainer_language_model", "text.txt", "OUT", 60)
    assert "validation loss in nats per character: 0." in said
    said = run("trainer_lora", "OUT", "other.txt", "ADAPTER", 60)
    before, after = (float(line.split()[1]) for line in said.splitlines() if line.startswith(("before", "after")))
    assert after < before
    assert (tmp_path / "ADAPTER" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_music_is_learned_as_ids(run, tmp_path):
    chorale = [[60 + step % 4, 57, 53, -1] for step in range(96)]
    chorales = {"train": [chorale] * 12, "valid": [chorale], "test": [chorale]}
    (tmp_path / "chorales.json.gz").write_bytes(gzip.compress(json.dumps(chorales).encode()))
    said = run("music_jsb", "chorales.json.gz", "OUT", 0.2)
    assert "for each of 384 notes of the validation chorales" in said
