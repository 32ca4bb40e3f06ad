"""The folder that a run leaves: model, vocabulary, settings and metrics, at every moment whole or not there."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig
from transformers.utils import logging

from transformer_xl.modeling.heads import TransfoXLLMHeadModel
from transformer_xl.pretrained_config import TransfoXLConfig
from transformer_xl.text.tokenizer_vocabulary import TokenizerVocabulary, load_vocabulary
from transformer_xl.text.vocabulary import Vocabulary
from transformer_xl.training.settings import RunSettings, is_untouched

METRICS_FILE = "metrics.jsonl"
UNFINISHED = ".unfinished"


class RunFolder:
    """OUT, the folder of a run: from its first step on it is there and can be gone on with.

    It holds `settings.json`, `versions.json`, the tokenizer, `metrics.jsonl`, the checkpoints, and beside them the best
    model so far. What goes wrong before the first step leaves nothing: `with` removes what it has made unless `keep`
    was called.
    """

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out).absolute()
        if self.out.exists() and not self.out.is_dir():
            raise FileExistsError(f"{str(out)!r} is a file: give the name of a new folder for the model")
        self.corpus = self.out / "corpus"
        self.checkpoints = self.out / "checkpoints"
        self._made = False

    @property
    def is_new(self) -> bool:
        """Whether there is nothing in it."""
        return is_untouched(self.out)

    def claim(self, settings: RunSettings) -> None:
        """Makes the folder for a new run and writes its settings there.

        Raises:
            FileExistsError: It has content.
            OSError: It cannot be made or written.
        """
        if not self.is_new:
            raise FileExistsError(
                f"the folder {str(self.out)!r} is not empty: give another name, or go on with its run (--resume)"
            )
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            settings.save(self.out)
        except OSError as error:
            raise OSError(
                f"the folder {str(self.out)!r} cannot be written ({error.strerror}): give one that can"
            ) from error
        self._made = True

    def keep(self) -> None:
        """From here on the run can be gone on with."""
        self._made = False

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._made:
            shutil.rmtree(self.out)

    def write_description(self, settings: RunSettings, vocabulary: Vocabulary | TokenizerVocabulary) -> None:
        """Writes `settings.json`, which a run that goes on may have changed, `versions.json` and the tokenizer."""
        with self._writing():
            settings.save(self.out)
            self._write_versions()
            vocabulary.save(self.out)

    def _write_versions(self) -> None:
        description = {"machine": platform.platform(), "python": platform.python_version()}
        for name in ("transformer-xl", "torch", "transformers", "accelerate", "numpy"):
            try:
                description[name] = version(name)
            except PackageNotFoundError:
                description[name] = "runs from its source, not installed"
        (self.out / "versions.json").write_text(json.dumps(description, indent=2), encoding="utf-8")

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Adds one line to `metrics.jsonl`."""
        with self._writing(), (self.out / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")

    @property
    def metrics_length(self) -> int:
        """The bytes of `metrics.jsonl` so far."""
        path = self.out / METRICS_FILE
        return path.stat().st_size if path.exists() else 0

    def cut_metrics(self, length: int) -> None:
        """Removes the lines of steps that will be repeated, all that is behind `length` bytes."""
        if self.metrics_length > length:
            os.truncate(self.out / METRICS_FILE, length)

    def write_model(self, model: TransfoXLLMHeadModel) -> None:
        """Puts a model in the place of the one before, each file in one rename."""
        self._remove_unfinished()
        with self._writing(), tempfile.TemporaryDirectory(dir=self.out, prefix=UNFINISHED) as unfinished:
            with _without_progress_bars():
                model.save_pretrained(unfinished)
            for file in Path(unfinished).iterdir():
                file.replace(self.out / file.name)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            raise OSError(
                f"{str(self.out)!r} cannot be written ({error}): make room or mend the folder, then go on with --resume"
            ) from error

    def _remove_unfinished(self) -> None:
        for path in self.out.glob(f"{UNFINISHED}*"):
            shutil.rmtree(path)


def load_run(folder: str | Path) -> tuple[TransfoXLLMHeadModel, Vocabulary | TokenizerVocabulary]:
    """The model and the vocabulary of a folder that training wrote, ready to evaluate or to write."""
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}: give a folder that training wrote")
    for name in ("config.json", "model.safetensors"):
        if not (path / name).is_file():
            raise FileNotFoundError(
                f"{str(folder)!r} holds no model, {name} is missing: give a folder that training wrote"
            )
    vocabulary = load_vocabulary(path)
    config = AutoConfig.from_pretrained(path)
    if not isinstance(config, TransfoXLConfig):
        raise ValueError(
            f"{str(folder)!r} holds a model of type {config.model_type!r}: give a folder that training wrote"
        )
    try:
        with _without_progress_bars():
            model = TransfoXLLMHeadModel.from_pretrained(path, config=config)
    except SafetensorError as error:
        raise ValueError(
            f"the weights in {str(folder)!r} cannot be read ({error}): copy or train the model again"
        ) from error
    if model.config.vocab_size != len(vocabulary):
        raise ValueError(
            f"the model in {str(folder)!r} knows {model.config.vocab_size:,} symbols, but its vocabulary lists "
            f"{len(vocabulary):,}: give a folder whose files belong together"
        )
    return model.train(False), vocabulary


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`."""
    lines = Path(folder, METRICS_FILE).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Keeps transformers from drawing a bar of its own across that of training."""
    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()
