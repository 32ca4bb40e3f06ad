"""The verb `train`: recipes, single settings, and what a run takes before it is begun."""

from __future__ import annotations

import json

import pytest

from transformer_xl.cli.main import main

TINY = [
    "num_layers=1", "width=16", "num_heads=2", "head_width=none", "inner_width=32", "memory_length=16", "batch_size=4",
    "segment_length=16", "steps=6", "warm_up_steps=2", "evaluations=2", "cutoffs=0",
]  # fmt: skip


def train(out, *options):
    return main(["train", str(out), *map(str, options)])


def sets(*assignments):
    return [word for assignment in assignments for word in ("--set", assignment)]


def test_a_dry_run_says_what_a_recipe_is_and_takes_and_writes_nothing(tmp_path, capsys):
    assert train(tmp_path / "out", "--recipe", "wikitext2", *sets("batch_size=16"), "--dry-run") == 0
    said = capsys.readouterr().out
    assert "  batch_size = 16\n" in said
    assert "  37,712,079 parameters, 33,278 symbols\n" in said
    assert "hours for 125,000 steps, if they reach 40%" in said
    assert not list(tmp_path.iterdir())


def test_a_recipe_runs_on_a_text_of_ones_own_with_settings_of_ones_own(toy_text, tmp_path):
    options = ["--recipe", "wikitext2", "--train", toy_text, *sets(*TINY)]
    assert train(tmp_path / "out", *options) == 0
    saved = json.loads((tmp_path / "out" / "settings.json").read_text(encoding="utf-8"))
    assert (saved["text"]["dataset"], saved["text"]["unit"], saved["training"]["optimizer"]) == (None, "word", "adam")
    assert (saved["model"]["cutoffs"], saved["training"]["batch_size"]) == ([], 4)


def test_options_and_assignments_are_two_ways_to_say_the_same(tmp_path, capsys):
    said = []
    for options in (["--dropout", "0.3", "--no-pre-norm"], sets("dropout=0.3", "pre_norm=false")):
        assert train(tmp_path / "out", "--train", "builtin:shakespeare", "--unit", "byte", *options, "--dry-run") == 0
        said.append(capsys.readouterr().out.split("the run:")[0])
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (sets("dropout"), "--set dropout: give a name and a value"),
        (sets("drop_out=1"), "there is no setting 'drop_out': is it one of dropout"),
        (sets("steps=many"), "steps is 'many', but must be a whole number"),
        (sets("learning_rate=fast"), "learning_rate is 'fast', but must be a number"),
        (sets("pre_norm=maybe"), "pre_norm is 'maybe', but must be true or false"),
        (sets("cutoffs=a,b"), "cutoffs is 'a,b', but must be whole numbers with commas"),
        (sets("batch_size=0"), "batch_size is 0, but must be at least 1"),
        (["--recipe", "wt104"], "invalid choice: 'wt104'"),
    ],
    ids=str,
)
def test_a_wrong_assignment_or_recipe_is_told_in_one_sentence(options, message, tmp_path, capsys):
    try:
        code = train(tmp_path / "out", "--train", "builtin:shakespeare", *options)
    except SystemExit as end:
        code = end.code
    errors = capsys.readouterr().err
    assert code == 2
    assert message in errors
    assert errors.count("\n") == 1


def test_a_run_without_a_text_is_refused(tmp_path, capsys):
    assert train(tmp_path / "out") == 2
    assert "give a text to learn from, or a known set and where it lies" in capsys.readouterr().err
