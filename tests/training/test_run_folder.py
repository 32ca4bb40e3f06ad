from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from transformer_xl.text.vocabulary import Vocabulary
from transformer_xl.training.fresh_model import fresh_model
from transformer_xl.training.run_folder import RunFolder, load_run, read_metrics
from transformer_xl.training.settings import ModelSettings, RunSettings, TextSettings

VOCABULARY = Vocabulary.build("abc", "char")
SETTINGS = RunSettings(TextSettings("text"), ModelSettings(num_layers=1, width=8, num_heads=2, inner_width=8))


def model():
    return fresh_model(SETTINGS.model, VOCABULARY, segment_length=4)


def new_run(folder):
    run = RunFolder(folder)
    run.claim(SETTINGS)
    run.write_description(SETTINGS, VOCABULARY)
    return run


def write_run(folder):
    new_run(folder).write_model(model())


def test_the_folder_is_there_before_its_first_model(tmp_path):
    out = tmp_path / "new" / "out"
    run = new_run(out)
    run.write_metrics({"step": 1})
    names = {path.name for path in out.iterdir()}
    assert {"tokenizer.json", "settings.json", "versions.json", "metrics.jsonl"} <= names
    assert "model.safetensors" not in names
    run.write_model(model())
    run.write_metrics({"step": 2})
    assert read_metrics(out) == [{"step": 1}, {"step": 2}]
    assert {"config.json", "model.safetensors"} <= {path.name for path in out.iterdir()}


def test_a_run_that_ends_before_it_has_begun_leaves_nothing(tmp_path):
    with RunFolder(tmp_path / "out") as run:
        run.claim(SETTINGS)
    assert not list(tmp_path.iterdir())


def test_a_run_that_has_begun_stays(tmp_path):
    with RunFolder(tmp_path / "out") as run:
        run.claim(SETTINGS)
        run.keep()
    assert (tmp_path / "out").is_dir()


def test_the_versions_and_the_settings_are_written_down(tmp_path):
    new_run(tmp_path / "out")
    versions = json.loads((tmp_path / "out" / "versions.json").read_text(encoding="utf-8"))
    assert versions["torch"] == torch.__version__
    assert RunSettings.load(tmp_path / "out") == SETTINGS


def test_lines_of_steps_that_are_repeated_are_removed(tmp_path):
    run = new_run(tmp_path / "out")
    run.write_metrics({"step": 1})
    length = run.metrics_length
    run.write_metrics({"step": 2})
    run.cut_metrics(length)
    assert read_metrics(tmp_path / "out") == [{"step": 1}]


def test_a_later_model_takes_the_place_of_the_one_before(tmp_path):
    later = model()
    run = new_run(tmp_path / "out")
    run.write_model(model())
    names = {path.name for path in (tmp_path / "out").iterdir()}
    run.write_model(later)
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    loaded, _ = load_run(tmp_path / "out")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), later.parameters(), strict=True))


def test_a_failed_write_leaves_the_model_before_it(tmp_path, monkeypatch):
    first, broken = model(), model()

    def fill_the_disk(folder):
        Path(folder, "config.json").write_text("{")
        raise OSError("no space left on device")

    run = new_run(tmp_path / "out")
    run.write_model(first)
    monkeypatch.setattr(broken, "save_pretrained", fill_the_disk)
    with pytest.raises(OSError, match=r"cannot be written \(no space left on device\): make room"):
        run.write_model(broken)
    loaded, _ = load_run(tmp_path / "out")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), first.parameters(), strict=True))
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    write_run(tmp_path / "out")
    load_run(tmp_path / "out")


def test_a_folder_with_content_and_a_file_are_refused(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty"):
        RunFolder(tmp_path).claim(SETTINGS)
    with pytest.raises(FileExistsError, match="is a file"):
        RunFolder(tmp_path / "note.txt")


def test_a_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OSError, match=r"out' cannot be written \(Permission denied\): give one that can"):
        RunFolder(tmp_path / "out").claim(SETTINGS)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_run(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"holds no model, config\.json is missing"):
        load_run(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer_config.json"])
def test_a_missing_file_is_named(name, tmp_path):
    write_run(tmp_path / "out")
    (tmp_path / "out" / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_run(tmp_path / "out")


def test_a_vocabulary_of_another_model_is_refused(tmp_path):
    write_run(tmp_path / "out")
    Vocabulary.build("abcdef", "char").save(tmp_path / "out")
    with pytest.raises(ValueError, match="knows 4 symbols, but its vocabulary lists 7"):
        load_run(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", "{"), ("config.json", json.dumps({"model_type": "gpt2"})), ("model.safetensors", "nothing")],
)
def test_a_broken_or_foreign_model_is_refused(name, content, tmp_path):
    write_run(tmp_path / "out")
    (tmp_path / "out" / name).write_text(content)
    with pytest.raises((ValueError, OSError), match="out"):
        load_run(tmp_path / "out")
