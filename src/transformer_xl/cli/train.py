"""`transformer-xl train`: from a text to a model."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from pathlib import Path
from typing import get_type_hints

from transformer_xl.cli.setting_options import option_name, option_of, settings_of
from transformer_xl.training.settings import GROUPS, ModelSettings, RunSettings, TextSettings, TrainingSettings
from transformer_xl.training.stopping import Stopped

SENTENCE = "Train a new model on a text and leave it in a folder."


def add_options(parser: argparse.ArgumentParser) -> None:
    """One option for each setting, with its sentence and its default."""
    parser.add_argument("out", metavar="OUT", help="folder for the model; new or empty, or with --resume that of a run")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in OUT, by its own settings and its newest whole checkpoint; begin it if OUT is empty",
    )
    parser.add_argument(
        "--allow-changes", action="store_true", help="go on even if options given here differ from the run's settings"
    )
    for title, settings in GROUPS.items():
        group = parser.add_argument_group(title)
        types = get_type_hints(settings)
        alternatives = group.add_mutually_exclusive_group() if settings is TrainingSettings else group
        for each in fields(settings):
            holder = alternatives if each.name in ("steps", "minutes") else group
            holder.add_argument(option_name(each), **option_of(each, types[each.name]))


def run(options: argparse.Namespace) -> None:
    """Trains, and says where the model is and how good."""
    settings = _run_settings(options)
    from transformer_xl.evaluation import loss_in_words
    from transformer_xl.training.loop import train

    try:
        score = train(settings, options.out, options.resume, options.allow_changes, show_progress=True)
    except Stopped as stop:
        raise Stopped(f"{stop}; go on with: transformer-xl train {options.out} --resume", stop.signal_number) from None
    except KeyboardInterrupt:
        left = f"{options.out} can be gone on with (--resume)" if Path(options.out).exists() else "nothing was written"
        raise KeyboardInterrupt(f"stopped; {left}") from None
    words = loss_in_words(score.loss, settings.text.unit)
    print(f"{options.out}: validation {words}, {score.tokens:,} tokens scored ({score.protocol})")


def _run_settings(options: argparse.Namespace) -> RunSettings:
    """The settings that were given, and for the others those of the run that is gone on with, or the defaults."""
    given = vars(options)
    out = Path(options.out)
    if options.resume and out.is_dir() and any(out.iterdir()):
        run = RunSettings.load(out)
        return RunSettings(
            *(settings_of(kind, {**asdict(getattr(run, name)), **given}) for name, kind in GROUPS.items())
        )
    return RunSettings(
        settings_of(TextSettings, given), settings_of(ModelSettings, given), settings_of(TrainingSettings, given)
    )
