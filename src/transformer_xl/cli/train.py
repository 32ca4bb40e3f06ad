"""`transformer-xl train`: from a text to a model."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from transformer_xl.cli.setting_options import option_name, option_of, settings_of
from transformer_xl.training.recipes import RECIPES, changed
from transformer_xl.training.settings import GROUPS, RunSettings, TextSettings, TrainingSettings, is_untouched
from transformer_xl.training.stopping import Stopped, is_first_process

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
    parser.add_argument("--recipe", choices=RECIPES, metavar="NAME", help=f"a whole run: {', '.join(RECIPES)}")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another value for one of the settings below; as often as needed",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what the run is and takes, and do not begin it")
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
    if options.dry_run:
        _describe(settings)
        return
    from transformer_xl.evaluation import loss_in_words
    from transformer_xl.text.tokenizer_vocabulary import load_vocabulary
    from transformer_xl.training.loop import train

    try:
        score = train(settings, options.out, options.resume, options.allow_changes, show_progress=True)
    except Stopped as stop:
        raise Stopped(f"{stop}; go on with: transformer-xl train {options.out} --resume", stop.signal_number) from None
    except KeyboardInterrupt:
        left = f"{options.out} can be gone on with (--resume)" if Path(options.out).exists() else "nothing was written"
        raise KeyboardInterrupt(f"stopped; {left}") from None
    if is_first_process():
        # A corpus that was encoded before has its own unit, whatever the settings say.
        words = loss_in_words(score.loss, load_vocabulary(Path(options.out)).unit)
        print(f"{options.out}: validation {words}, {score.tokens:,} tokens scored ({score.protocol})")


def _run_settings(options: argparse.Namespace) -> RunSettings:
    """The settings that were given, and for the others those of the run to go on with, the recipe or the defaults."""
    given = {name: value for name, value in vars(options).items() if name in _annotations()}
    given |= dict(_assignment(text) for text in options.set)
    out = Path(options.out)
    if options.resume and not is_untouched(out):
        return changed(RunSettings.load(out), **given)
    if options.recipe is not None:
        return changed(RECIPES[options.recipe](given.pop("data", None)), **given)
    return changed(RunSettings(settings_of(TextSettings, given)), **given)


def _annotations() -> dict[str, Any]:
    """The type of each setting, by its name."""
    return {name: annotation for group in GROUPS.values() for name, annotation in get_type_hints(group).items()}


def _assignment(text: str) -> tuple[str, Any]:
    """The name and the value of `NAME=VALUE`; a setting that may be None takes `none`, several numbers take commas."""
    name, equals, value = text.partition("=")
    name = name.replace("-", "_")
    if not equals:
        raise ValueError(f"--set {text}: give a name and a value, such as --set batch_size=16")
    annotation = _annotations().get(name, str)
    choices = get_args(annotation) or (annotation,)
    if value == "none" and type(None) in choices:
        return name, None
    try:
        if bool in choices:
            return name, {"true": True, "false": False}[value]
        if tuple[int, ...] in choices:
            return name, tuple(map(int, value.split(",")))
        kind = int if int in choices else float if float in choices else str
        return name, kind(value)
    except (ValueError, KeyError):
        kinds = {bool: "true or false", int: "a whole number", float: "a number"}
        wanted = next((words for kind, words in kinds.items() if kind in choices), "whole numbers with commas")
        raise ValueError(f"{name} is {value!r}, but must be {wanted}") from None


def _describe(settings: RunSettings) -> None:
    """Prints the settings of a run and what it takes."""
    import torch

    from transformer_xl.training.estimates import ASSUMED_SHARE, estimate, matrix_product_rate

    for title in GROUPS:
        print(f"{title}:")
        for name, value in asdict(getattr(settings, title)).items():
            print(f"  {name} = {value}")
    found = estimate(settings)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rate = matrix_product_rate(device, torch.float32 if settings.training.precision == "float32" else torch.bfloat16)
    hours = found.hours(rate * ASSUMED_SHARE)
    print(f"the run:\n  {found.num_parameters:,} parameters, {found.num_symbols:,} symbols")
    print(
        f"  memory: {found.fixed_bytes / 1e9:.2f} GB for weights, gradients and optimiser, about "
        f"{found.step_bytes / 1e9:.2f} GB for a step, in float32 and one process"
    )
    print(f"  {found.operations:.2e} floating-point operations a step")
    if hours is None:
        print(f"  time: {settings.training.minutes:g} minutes, as it is told")
    else:
        print(
            f"  time: about {hours:,.1f} hours for {found.steps:,} steps, if they reach {ASSUMED_SHARE:.0%} of the "
            f"{rate / 1e9:,.0f} GFLOP/s that matrix products reach here now ({device}), and without evaluations"
        )
