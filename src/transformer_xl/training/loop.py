"""Truncated back-propagation through time with carried memory, under accelerate."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor
from tqdm import tqdm

from transformer_xl.data.corpus import Corpus, read_corpus
from transformer_xl.data.segments import Segments
from transformer_xl.evaluation import Protocol, Score, evaluate, loss_in_words
from transformer_xl.training.fresh_model import fresh_model
from transformer_xl.training.optimizers import optimizer_for
from transformer_xl.training.run_folder import RunFolder
from transformer_xl.training.schedules import progress, schedule_for
from transformer_xl.training.settings import RunSettings, TrainingSettings

SECONDS_BETWEEN_LOGS = 2.0
BAR_FORMAT = "{percentage:3.0f} %|{bar}| {elapsed} gone, {remaining} left{postfix}"


@dataclass
class RunState:
    """What changes while a run goes on, besides the weights, the optimiser's averages and the random numbers.

    `step` steps were done in `seconds`; the next one reads `segment` of `epoch` with the `memory` of the one before.
    `best` is the best validation score so far: that of the model in OUT.
    """

    step: int = 0
    seconds: float = 0.0
    epoch: int = 0
    segment: int = 0
    memory: list[Tensor] | None = None
    best: Score | None = None


def train(settings: RunSettings, out: str | Path, show_progress: bool = False) -> Score:
    """The best validation score of a new model, which is left in the folder `out` with all that belongs to it.

    `out` holds the model (`AutoModelForCausalLM.from_pretrained` opens it), its tokenizer, `settings.json` and
    `metrics.jsonl`. It appears with the first evaluation; a run that is stopped earlier leaves nothing. Each evaluation
    that is better than all before writes its model. The last one comes when the budget is used up. With a budget in
    steps, the same settings give the same model on the same machine.

    Raises:
        FileExistsError: `out` is a file, or a folder that is not empty.
        FileNotFoundError, ValueError: a text is missing, empty, not UTF-8 or too short, or there are several processes.
        FloatingPointError: the loss is no longer a finite number.
    """
    accelerator = Accelerator()
    if accelerator.num_processes > 1:
        raise ValueError(
            f"training was started in {accelerator.num_processes} processes, but runs in one: start it without "
            "torchrun or accelerate launch"
        )
    folder = RunFolder(out)
    corpus = read_corpus(settings.text)
    _refuse_short_texts(corpus, settings.training)
    with folder, tqdm(total=100, bar_format=BAR_FORMAT, disable=not show_progress) as bar:
        folder.write_description(settings, corpus.vocabulary)
        return _Run(settings, corpus, folder, accelerator, bar).finish()


class _Run:
    def __init__(
        self, settings: RunSettings, corpus: Corpus, folder: RunFolder, accelerator: Accelerator, bar: tqdm
    ) -> None:
        self.settings = settings.training
        self.unit = settings.text.unit
        self.folder = folder
        self.valid = corpus.valid
        self.state = RunState()
        self.bar = bar
        self.accelerator = accelerator
        set_seed(self.settings.seed)
        model = fresh_model(settings.model, corpus.vocabulary, self.settings.segment_length)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer_for(model, self.settings))
        self.schedule = schedule_for(self.settings)
        self.segments = Segments(corpus.train, self.settings.batch_size, self.settings.segment_length)
        self.protocol = _validation_protocol(settings, len(corpus.valid))
        unknown = corpus.vocabulary.count_unknown(corpus.valid)
        self._say(
            f"{len(corpus.train):,} symbols to learn from, {len(corpus.valid):,} to validate on ({unknown:,} unknown), "
            f"{len(corpus.vocabulary):,} in the vocabulary; {model.num_parameters():,} parameters"
        )

    def finish(self) -> Score:
        self.began = self.logged = time.perf_counter()
        self.losses: list[Tensor] = []
        for number in range(self.settings.evaluations):
            last_step = self.state.step
            while self._progress() < (number + 1) / self.settings.evaluations:
                self._step()
                if time.perf_counter() - self.logged > SECONDS_BETWEEN_LOGS:
                    self._log()
            if self.state.step > last_step:
                self._log()
                self._validate()
        assert self.state.best is not None
        return self.state.best

    def _progress(self) -> float:
        return progress(self.state.step, self.state.seconds, self.settings.steps, self.settings.minutes)

    def _learning_rate(self) -> float:
        return self.settings.learning_rate * self.schedule.factor(self._progress(), self.state.step)

    def _step(self) -> None:
        """Reads the next segment and learns from it."""
        state = self.state
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        segment = self.segments[state.segment].to(self.accelerator.device)
        output = self.model(segment.inputs, mems=state.memory, shift_labels=segment.targets)
        self.accelerator.backward(output.loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.losses.append(output.loss.detach())
        state.memory = output.mems
        state.segment += 1
        if state.segment == len(self.segments):
            state.epoch, state.segment, state.memory = state.epoch + 1, 0, None
        state.step += 1
        state.seconds = time.perf_counter() - self.began

    def _log(self) -> None:
        """Writes down and shows what the steps since the last time were like, if there were any."""
        if not self.losses:
            return
        now = time.perf_counter()
        loss = torch.stack(self.losses).mean().item()
        self._refuse_divergence(loss)
        tokens = len(self.losses) * self.settings.batch_size * self.settings.segment_length
        tokens_per_second = tokens / (now - self.logged)
        self.folder.write_metrics(
            {
                **self._place(),
                "loss": loss,
                "learning_rate": self._learning_rate(),
                "tokens_per_second": round(tokens_per_second),
            }
        )
        self.bar.set_postfix_str(f"{tokens_per_second:,.0f} tokens/s, {loss_in_words(loss, self.unit)}", refresh=False)
        self.bar.update(100 * self._progress() - self.bar.n)
        self.losses, self.logged = [], now

    def _validate(self) -> None:
        """Scores the validation text, and keeps the model if it is the best so far."""
        state = self.state
        model = self.accelerator.unwrap_model(self.model)
        score = evaluate(model, self.valid, self.protocol)
        self._refuse_divergence(score.loss)
        self.schedule.observe(score.loss)
        is_best = state.best is None or score.loss < state.best.loss
        self.folder.write_metrics({**self._place(), "validation_loss": score.loss, "protocol": str(score.protocol)})
        if is_best:
            state.best = score
            self.folder.write_model(model)
        words = loss_in_words(score.loss, self.unit)
        self._say(f"step {state.step:6,}: validation {words}{'' if is_best else ', not the best'}")
        state.seconds = (now := time.perf_counter()) - self.began
        self.logged = now

    def _say(self, sentence: str) -> None:
        if not self.bar.disable:
            self.bar.write(sentence)

    def _place(self) -> dict[str, float]:
        return {"step": self.state.step, "epoch": self.state.epoch, "seconds": round(self.state.seconds, 3)}

    def _refuse_divergence(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {self.state.step:,} with a learning rate of {self._learning_rate():.2g}: "
                "try a lower learning_rate"
            )


def _refuse_short_texts(corpus: Corpus, settings: TrainingSettings) -> None:
    needed = settings.batch_size * settings.segment_length + 1
    if len(corpus.train) < needed:
        raise ValueError(
            f"the training text has {len(corpus.train):,} symbols, but {settings.batch_size} streams of at least one "
            f"segment of {settings.segment_length} need {needed:,}: give a longer text, or a smaller batch size or "
            "segment length"
        )
    if len(corpus.valid) < 2:
        raise ValueError(
            f"the validation text has {len(corpus.valid)} symbols, but needs at least 2: give a longer text"
        )


def _validation_protocol(settings: RunSettings, num_tokens: int) -> Protocol:
    """The lengths of training, with as many streams as have a whole segment to read."""
    length = settings.training.segment_length
    batch_size = min(settings.training.batch_size, max(1, (num_tokens - 1) // length))
    return Protocol(length, settings.model.memory_length, batch_size=batch_size)
