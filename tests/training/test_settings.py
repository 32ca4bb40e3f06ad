from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import pytest

from transformer_xl.training.settings import ModelSettings, RunSettings, TextSettings, TrainingSettings

TEXT = TextSettings("builtin:shakespeare")


@pytest.mark.parametrize("settings", [TextSettings, ModelSettings, TrainingSettings])
def test_every_number_has_its_sentence(settings):
    assert all(len(each.metadata["sentence"].split()) > 2 for each in fields(settings))


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        (TEXT, "unit", "letter"),
        (TEXT, "min_count", 0),
        (ModelSettings(), "num_layers", 0),
        (ModelSettings(), "memory_length", -1),
        (ModelSettings(), "dropout", 1.0),
        (ModelSettings(), "dropout", math.nan),
        (TrainingSettings(), "batch_size", -3),
        (TrainingSettings(), "steps", 0),
        (TrainingSettings(), "minutes", 0.0),
        (TrainingSettings(), "minutes", math.inf),
        (TrainingSettings(), "learning_rate", math.nan),
        (TrainingSettings(), "learning_rate", 0.0),
        (TrainingSettings(), "final_learning_rate", 1.5),
        (TrainingSettings(), "seed", -1),
    ],
)
def test_a_value_out_of_range_is_named_with_what_may_come(settings, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value!r}, but must be "):
        replace(settings, **{name: value})


def test_heads_that_do_not_divide_the_width_are_named():
    with pytest.raises(ValueError, match="width is 100 and num_heads 3"):
        ModelSettings(width=100, num_heads=3)
    assert ModelSettings(width=100, num_heads=3, head_width=33).head_width == 33


def test_saved_settings_are_readable_json(tmp_path):
    RunSettings(TEXT, training=TrainingSettings(steps=7)).save(tmp_path)
    saved = json.loads((tmp_path / "settings.json").read_text(encoding="utf-8"))
    assert saved["text"]["train"] == "builtin:shakespeare"
    assert saved["training"]["steps"] == 7
