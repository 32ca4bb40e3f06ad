"""Truncated back-propagation through time with carried memory, under accelerate."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor
from tqdm import tqdm

from transformer_xl.data.corpus import Corpus, is_corpus, open_corpus, open_or_encode
from transformer_xl.data.segments import NOT_COUNTED, Segment, SegmentStream, segments_of
from transformer_xl.evaluation import Protocol, Score, evaluate, loss_in_words
from transformer_xl.modeling import memory
from transformer_xl.modeling.memory import Memory
from transformer_xl.training import shares
from transformer_xl.training.averaging import Averaging
from transformer_xl.training.distribution import (
    STEPS_BETWEEN_AGREEMENTS,
    accelerated,
    agree,
    end,
    prepare,
    whole_model,
    without_sync,
)
from transformer_xl.training.divergence import first_divergence
from transformer_xl.training.fresh_model import fresh_model
from transformer_xl.training.optimizers import optimizer_for
from transformer_xl.training.pictures import draw_learning_curve
from transformer_xl.training.regularization import ActivationRegularization, only_later_half
from transformer_xl.training.run_folder import RunFolder, read_metrics
from transformer_xl.training.run_state import Checkpoint, Checkpoints, random_states, restore_random_states
from transformer_xl.training.schedules import progress, schedule_for
from transformer_xl.training.settings import RunSettings, TrainingSettings, refuse_changes
from transformer_xl.training.stopping import Interrupted, Signals, Stopped

SECONDS_BETWEEN_LOGS = 2.0
BAR_FORMAT = "{percentage:3.0f} %|{bar}| {elapsed} gone, {remaining} left{postfix}"


@dataclass
class RunState:
    """What changes while a run goes on, besides the weights, the optimiser's averages, the memory and random numbers.

    `step` steps were done in `seconds`; the next one reads `segment` of `epoch`. So many `evaluations` of those planned
    are behind, the last one at `evaluated_step`. `best` is the best validation score so far, that of the model in OUT,
    which was reached at `best_step`.
    """

    step: int = 0
    seconds: float = 0.0
    epoch: int = 0
    segment: int = 0
    evaluations: int = 0
    evaluated_step: int = 0
    best: Score | None = None
    best_step: int | None = None


def train(
    settings: RunSettings | None,
    out: str | Path,
    resume: bool = False,
    allow_changes: bool = False,
    show_progress: bool = False,
) -> Score:
    """The best validation score of a new model, which is left in the folder `out` with all that belongs to it.

    `out` holds the best model (`AutoModelForCausalLM.from_pretrained` opens it), its tokenizer, `settings.json`,
    `versions.json`, `metrics.jsonl`, `checkpoints` and `curve.png`. The last evaluation comes when the budget is used
    up. With a budget in steps, the same settings give the same model on the same machine, however often the run was
    stopped or killed and gone on with.

    Args:
        settings: The run; None for that of `out`, which is gone on with.
        out: A folder that is new or empty, or with `resume` that of a run.
        resume: Whether to go on with the run in `out`. Where there is none yet, it begins.
        allow_changes: Whether a run may go on with other settings than it began with.
        show_progress: Whether to show a bar and a sentence for each evaluation.

    Raises:
        FileExistsError: `out` is a file, or a folder that is not empty and not to be gone on with.
        FileNotFoundError, ValueError: A text is missing, empty, not UTF-8, too short or changed; or the settings do not
            fit each other, this machine, or the run that is gone on with.
        FloatingPointError: The loss has exploded, or it or the gradient is no longer a finite number.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the run is saved if it has begun (`Stopped`).
        OSError: `out` cannot be written; the last checkpoint is whole.
    """
    folder = RunFolder(out)
    begun = RunSettings.load(folder.out) if resume and not folder.is_new else None
    if begun is not None:
        settings = settings or begun
        refuse_changes(begun, settings, allow_changes)
    if settings is None:
        raise FileNotFoundError(f"there is no run in {str(out)!r} to go on with: give the folder of one, or settings")
    with accelerated(settings.training, folder.out) as accelerator, folder:
        if accelerator.is_main_process and begun is None:
            folder.claim(settings)
        accelerator.wait_for_everyone()
        with accelerator.main_process_first():
            corpus = _corpus(settings, folder, begun, accelerator.is_main_process, show_progress)
        _refuse_short_texts(corpus, settings.training)
        hidden = not (show_progress and accelerator.is_main_process)
        with tqdm(total=100, bar_format=BAR_FORMAT, disable=hidden) as bar:
            run = _Run(settings, corpus, folder, accelerator, bar)
            if begun is not None:
                run.go_on()
            if accelerator.is_main_process:
                folder.write_description(settings, corpus.vocabulary)
            folder.keep()
            return run.finish()


class _Run:
    def __init__(
        self, settings: RunSettings, corpus: Corpus, folder: RunFolder, accelerator: Accelerator, bar: tqdm
    ) -> None:
        self.settings = settings.training
        self.text = settings.text
        self.unit = corpus.vocabulary.unit
        self.folder = folder
        self.corpus = corpus
        self.corpus_checksum = corpus.manifest.checksum
        self.state = RunState()
        self.bar = bar
        self.accelerator = accelerator
        self.checkpoints = Checkpoints(folder.checkpoints, self.settings.keep_checkpoints, accelerator)
        set_seed(self.settings.seed)
        model = fresh_model(settings.model, corpus.vocabulary, self.settings.segment_length, settings.text.ext_len)
        self.num_parameters = model.num_parameters()
        self.largest_loss = self.settings.largest_loss * math.log(len(corpus.vocabulary))
        self.regularization = ActivationRegularization(
            model.transformer.drop_output,
            self.settings.activation_regularization,
            self.settings.temporal_activation_regularization,
        )
        self.model, self.optimizer = prepare(accelerator, model, self.settings, optimizer_for)
        self.schedule = schedule_for(self.settings)
        self.averaging = self._averaging()
        if accelerator.num_processes > 1:
            set_seed(self.settings.seed, device_specific=True)
        self.segments = self._segments()
        self.memories: list[Memory | None] = [None] * self.settings.micro_batches
        self.memory_device = "cpu" if self.settings.memory_on_cpu else accelerator.device
        self.protocol = _validation_protocol(settings, len(corpus.valid), corpus.manifest.begin)
        accelerator.init_trackers("transformer-xl", config=_flat(settings))

    def go_on(self) -> None:
        """Takes up the newest whole checkpoint; without any, the run begins anew."""
        checkpoint, sentences = self.checkpoints.newest()
        for sentence in sentences:
            self._say(sentence)
        if checkpoint is None:
            self.folder.cut_metrics(0)
            return
        if checkpoint.shared["run"]["corpus"] != self.corpus_checksum:
            raise ValueError(
                "the corpus is not the one that the run began with: give that one, or start a new run in another folder"
            )
        self._load(checkpoint)
        self._say(f"going on from step {self.state.step:,}")

    def finish(self) -> Score:
        """Takes all steps that are left."""
        unknown = self.corpus.vocabulary.count_unknown(self.corpus.valid)
        self._say(
            f"{len(self.corpus.train):,} symbols to learn from, {len(self.corpus.valid):,} to validate on ({unknown:,} "
            f"unknown), {len(self.corpus.vocabulary):,} in the vocabulary; {self.num_parameters:,} parameters"
        )
        self.began = time.perf_counter() - self.state.seconds
        self.logged = self.saved = time.perf_counter()
        self.losses: list[Tensor] = []
        self.norms: list[Tensor] = []
        self.rates: list[float] = []
        with Signals(patient=self.accelerator.num_processes > 1) as self.signals:
            while self.state.evaluations < self.settings.evaluations:
                while self._progress() < (self.state.evaluations + 1) / self.settings.evaluations:
                    self._step()
                    self._pause()
                if self.state.step > self.state.evaluated_step:
                    self._log()
                    self._validate()
                    self.state.evaluations += 1
                    self._save()
                else:
                    self.state.evaluations += 1
        self._draw()
        end(self.accelerator)
        assert self.state.best is not None
        return self.state.best

    def _segments(self) -> SegmentStream:
        """The segments of this process in the epoch that the run is in."""
        return segments_of(
            self.corpus,
            "train",
            self.text,
            self.settings.batch_size,
            self.settings.segment_length,
            seed=self.settings.seed,
            epoch=self.state.epoch,
            process_index=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
        )

    def _progress(self) -> float:
        return progress(self.state.step, self.state.seconds, self.settings.steps, self.settings.minutes)

    def _learning_rate(self) -> float:
        return self.settings.learning_rate * self.schedule.factor(self._progress(), self.state.step)

    def _averaging(self) -> Averaging | None:
        settings = self.settings
        if settings.averaging == "none":
            return None
        return Averaging(self._unwrapped(), settings.averaging_decay if settings.averaging == "exponential" else None)

    def _unwrapped(self) -> torch.nn.Module:
        """The model itself, of whose parameters a process may hold a share only."""
        model: torch.nn.Module = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return model

    def _averaged(self) -> AbstractContextManager[None]:
        """The model as it is validated and kept: with its averages, if there are any yet."""
        return nullcontext() if self.averaging is None else self.averaging.applied()

    def _step(self) -> None:
        """Reads the next segment and learns from it."""
        state = self.state
        segment = self.segments[state.segment]
        averages = self.averaging is not None and self._progress() >= self.settings.averaging_start
        rate = self._learning_rate()
        if self.settings.scale_rate_by_length:
            rate *= segment.inputs.shape[1] / self.settings.segment_length
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        if self.settings.half_loss:
            segment = replace(segment, targets=only_later_half(segment.targets))
        counted = segment.targets.ne(NOT_COUNTED).sum().to(self.accelerator.device)
        counted = self.accelerator.reduce(counted, "sum").clamp(min=1)
        parts = _parts(segment, self.settings.micro_batches)
        loss = torch.zeros((), device=self.accelerator.device)
        for index, part in enumerate(parts):
            is_last = index == len(parts) - 1
            with nullcontext() if is_last else without_sync(self.accelerator, self.model):
                loss += self._learn(part.to(self.accelerator.device), index, counted)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.averaging is not None and averages:
            self.averaging.update()
        self.losses.append(loss)
        self.norms.append(shares.whole(norm))
        self.rates.append(rate)
        state.segment += 1
        if state.segment == len(self.segments):
            state.epoch, state.segment = state.epoch + 1, 0
            self.segments, self.memories = self._segments(), [None] * self.settings.micro_batches
        state.step += 1

    def _learn(self, segment: Segment, index: int, counted: Tensor) -> Tensor:
        """Adds the gradient of one micro-batch; its share of the loss of all `counted` targets of this step."""
        mems = self.memories[index]
        if mems is not None and segment.resets is not None:
            mems = memory.reset(mems, segment.resets)
        with self.accelerator.autocast():
            output = self.model(segment.inputs, mems=mems, shift_labels=segment.targets)
        loss: Tensor = output.losses.sum() / counted
        penalty = self.regularization.penalty() / self.settings.micro_batches
        # Gradients are averaged over the processes, but the loss is that of all of their targets.
        self.accelerator.backward(loss * self.accelerator.num_processes + penalty)
        self.memories[index] = output.mems and memory.move(output.mems, self.memory_device)
        return loss.detach()

    def _pause(self) -> None:
        """Looks at the clock and for signals between two steps; several processes do so now and then, together."""
        if self.accelerator.num_processes > 1 and self.state.step % STEPS_BETWEEN_AGREEMENTS:
            return
        now = time.perf_counter()
        to_log = now - self.logged > SECONDS_BETWEEN_LOGS
        to_save = now - self.saved >= 60 * self.settings.save_minutes
        signal_number, wishes = agree(
            self.accelerator, self.signals.received, [now - self.began, float(to_log), float(to_save)]
        )
        self.state.seconds = wishes[0]
        if wishes[1]:
            self._log()
        if signal_number:
            self._stop(signal_number)
        if wishes[2]:
            self._save()

    def _stop(self, signal_number: int) -> NoReturn:
        self._save()
        end(self.accelerator)
        raise Stopped(f"stopped at step {self.state.step:,}", signal_number)

    def _log(self) -> None:
        """Writes down and shows what the steps since the last time were like, if there were any."""
        if not self.losses:
            return
        now = time.perf_counter()
        losses = self.accelerator.reduce(torch.stack(self.losses), "sum").tolist()
        norms = torch.stack(self.norms).tolist()
        skips_overflows = self.accelerator.scaler is not None
        if (found := first_divergence(losses, norms, self.largest_loss, skips_overflows)) is not None:
            before = self.state.step - len(losses)
            self._stop_diverging(
                f"{found.sentence} at step {before + found.place + 1:,} with a learning rate of "
                f"{self.rates[found.place]:.2g} and a gradient of norm {norms[found.place]:.3g}",
                before + found.trusted,
            )
        loss = sum(losses) / len(losses)
        tokens = len(self.losses) * self.settings.batch_size * self.settings.segment_length
        tokens_per_second = tokens / (now - self.logged)
        self._write_metrics(
            {
                "loss": loss,
                "learning_rate": self._learning_rate(),
                "gradient_norm": norms[-1],
                "tokens_per_second": round(tokens_per_second),
            }
        )
        self.bar.set_postfix_str(f"{tokens_per_second:,.0f} tokens/s, {loss_in_words(loss, self.unit)}", refresh=False)
        self.bar.update(100 * self._progress() - self.bar.n)
        self.losses, self.norms, self.rates, self.logged = [], [], [], now

    def _validate(self) -> None:
        """Scores the validation text, and keeps the model if it is the best so far."""
        state = self.state
        try:
            with self._averaged(), self.accelerator.autocast(), self.signals.at_once():
                score = self._evaluate()
        except Interrupted as interrupt:
            self._stop(interrupt.signal_number)
        if not math.isfinite(score.loss):
            self._stop_diverging(
                f"the validation loss is {score.loss} at step {state.step:,} with a learning rate of "
                f"{self._learning_rate():.2g}",
                state.step - 1,
            )
        self.schedule.observe(score.loss)
        is_best = state.best is None or score.loss < state.best.loss
        self._write_metrics({"validation_loss": score.loss, "protocol": str(score.protocol)})
        if is_best:
            state.best, state.best_step = score, state.step
            with self._averaged():
                model = whole_model(self.accelerator, self.model)
                if self.accelerator.is_main_process:
                    self.folder.write_model(model)
        state.evaluated_step = state.step
        words = loss_in_words(score.loss, self.unit)
        self._say(f"step {state.step:6,}: validation {words}{'' if is_best else ', not the best'}")
        self.logged = time.perf_counter()
        _, (state.seconds,) = agree(self.accelerator, 0, [self.logged - self.began])

    def _evaluate(self) -> Score:
        """The score of the validation text, whose streams the processes share where they can do so evenly."""
        accelerator, protocol = self.accelerator, self.protocol
        num_readers = 1 if protocol.batch_size % accelerator.num_processes else accelerator.num_processes
        text = segments_of(
            self.corpus,
            "valid",
            replace(self.text, varlen=False),
            protocol.batch_size,
            protocol.target_length,
            seed=self.settings.seed,
            epoch=0,
            process_index=accelerator.process_index % num_readers,
            num_processes=num_readers,
        )
        own = replace(protocol, batch_size=protocol.batch_size // num_readers)
        score = evaluate(whole_model(accelerator, self.model), text, own)
        if num_readers == 1:
            return score
        sums = torch.tensor([score.nats, score.tokens], dtype=torch.float64, device=accelerator.device)
        nats, tokens = accelerator.reduce(sums, "sum").tolist()
        read_by = replace(score.protocol, batch_size=protocol.batch_size)
        return replace(score, nats=nats, tokens=int(tokens), protocol=read_by)

    def _save(self) -> None:
        """Writes a checkpoint."""
        self._log()
        state = {
            **asdict(self.state),
            "corpus": self.corpus_checksum,
            "metrics_length": self.folder.metrics_length,
            "schedule": self.schedule.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else {},
        }
        shared = {
            "model": shares.whole_weights(self._unwrapped()),
            "optimizer": shares.whole_optimizer_state(self.optimizer),
            "run": state,
        }
        if self.averaging is not None:
            shared["averages"] = self.averaging.state_dict()
        own = {"random": random_states(self.accelerator.device), "memory": shares.joined_memory(self.memories)}
        self.checkpoints.save(self.state.step, shared, own, self.state.best_step)
        self.saved = time.perf_counter()

    def _load(self, checkpoint: Checkpoint) -> None:
        """Brings everything to where it was when the checkpoint was written."""
        saved = dict(checkpoint.shared["run"])
        self.folder.cut_metrics(saved["metrics_length"])
        self.schedule.load_state_dict(saved["schedule"])
        if self.accelerator.scaler is not None and saved["scaler"]:
            self.accelerator.scaler.load_state_dict(saved["scaler"])
        best = saved["best"]
        saved["best"] = best and Score(**{**best, "protocol": Protocol(**best["protocol"])})
        self.state = RunState(**{name: saved[name] for name in asdict(self.state)})
        shares.fill_weights(self._unwrapped(), checkpoint.shared["model"])
        shares.fill_optimizer(self.optimizer, checkpoint.shared["optimizer"])
        if self.averaging is not None and "averages" in checkpoint.shared:
            self.averaging.load_state_dict(checkpoint.shared["averages"])
        self.segments = self._segments()
        index, number = self.accelerator.process_index, self.accelerator.num_processes
        num_parts = self.settings.micro_batches
        parts = shares.parted_memory([own["memory"] for own in checkpoint.own], number * num_parts)
        if parts:
            own_parts = parts[index * num_parts :][:num_parts]
            self.memories = [memory.move(part, self.memory_device) for part in own_parts]
        if len(checkpoint.own) == number:
            restore_random_states(checkpoint.own[index]["random"], self.accelerator.device)
        else:
            set_seed((self.settings.seed + self.state.step) % 2**32, device_specific=True)

    def _write_metrics(self, metrics: dict[str, Any]) -> None:
        place = {"step": self.state.step, "epoch": self.state.epoch, "seconds": round(self.state.seconds, 3)}
        if self.accelerator.is_main_process:
            self.folder.write_metrics({**place, **metrics})
        numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        self.accelerator.log(numbers, step=self.state.step)

    def _draw(self) -> None:
        if find_spec("matplotlib") is None:
            self._say('no curve.png, which needs matplotlib: pip install "transformer-xl[plots]"')
        elif self.accelerator.is_main_process:
            draw_learning_curve(read_metrics(self.folder.out), self.unit, self.folder.out / "curve.png")

    def _say(self, sentence: str) -> None:
        if not self.bar.disable:
            self.bar.write(sentence)

    def _stop_diverging(self, mistake: str, trusted_step: int) -> NoReturn:
        """Stops, and leaves no checkpoint in the way of the last one that is known to be good."""
        self.checkpoints.set_aside(trusted_step)
        raise FloatingPointError(f"{mistake}; {self.checkpoints.last_good()}: try a lower learning_rate")


def _corpus(
    settings: RunSettings, folder: RunFolder, begun: RunSettings | None, is_main: bool, show_progress: bool
) -> Corpus:
    """The corpus of a run: the one that its settings name, or what the main process encodes its texts into."""
    if not is_corpus(folder.corpus):
        return open_or_encode(settings.text, folder.corpus, show_progress and is_main)
    if begun is not None and begun.text != settings.text:
        raise ValueError(
            f"the text cannot change while a run goes on, which reads {str(folder.corpus)!r}: start a new run"
        )
    return open_corpus(folder.corpus, verify=begun is not None and is_main)


def _parts(segment: Segment, number: int) -> list[Segment]:
    """The rows of a segment as micro-batches."""
    resets = [None] * number if segment.resets is None else segment.resets.chunk(number)
    rows = zip(segment.inputs.chunk(number), segment.targets.chunk(number), resets, strict=True)
    return [Segment(*part) for part in rows]


def _flat(settings: RunSettings) -> dict[str, int | float | str]:
    """All settings by name, as trackers take them."""
    groups = asdict(settings).values()
    return {
        name: value if isinstance(value, int | float) else str(value) for each in groups for name, value in each.items()
    }


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


def _validation_protocol(settings: RunSettings, num_tokens: int, begin: int | None) -> Protocol:
    """The lengths of training, with as many streams as have a whole segment to read."""
    length = settings.training.segment_length
    return Protocol(
        length,
        settings.model.memory_length,
        settings.model.clamp_length,
        settings.model.same_length,
        batch_size=min(settings.training.batch_size, max(1, (num_tokens - 1) // length)),
        begin=begin,
        extended_length=settings.text.ext_len,
    )
