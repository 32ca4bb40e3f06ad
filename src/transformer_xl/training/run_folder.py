"""The folder that a run leaves: model, vocabulary, settings and metrics, at every moment whole or not there."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
from transformer_xl.training.settings import RunSettings

METRICS_FILE = "metrics.jsonl"


class RunFolder:
    """OUT while a run writes it.

    The run begins in a hidden folder beside OUT, which gets OUT's name when the first model in it is whole. A run that
    ends before leaves nothing; later models replace the one before file by file, each in one rename.
    """

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out).absolute()
        if self.out.exists() and not self.out.is_dir():
            raise FileExistsError(f"{str(out)!r} is a file: give the name of a new folder for the model")
        if self.out.is_dir() and any(self.out.iterdir()):
            raise FileExistsError(f"the folder {str(out)!r} is not empty: give another name or remove it first")
        self._path = self.out.with_name(f".{self.out.name}.{os.getpid()}.partial")

    def __enter__(self) -> RunFolder:
        self._path.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._path != self.out:
            shutil.rmtree(self._path)

    def write_description(self, settings: RunSettings, vocabulary: Vocabulary | TokenizerVocabulary) -> None:
        """Writes `settings.json` and the tokenizer."""
        settings.save(self._path)
        vocabulary.save(self._path)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Adds one line to `metrics.jsonl`."""
        with (self._path / METRICS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")

    def write_model(self, model: TransfoXLLMHeadModel) -> None:
        """Puts a model in the place of the one before; the first one makes OUT appear."""
        with tempfile.TemporaryDirectory(dir=self._path, prefix=".unfinished") as unfinished:
            with _without_progress_bars():
                model.save_pretrained(unfinished)
            for file in Path(unfinished).iterdir():
                file.replace(self._path / file.name)
        if self._path != self.out:
            if self.out.exists():
                self.out.rmdir()
            self._path = self._path.rename(self.out)


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
