"""Every number of a training run, each with its sentence and its range.

Nothing here imports torch: the command line builds its options from these fields.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from transformer_xl.configuration import INITIAL_MEMORIES
from transformer_xl.data.text_settings import TextSettings
from transformer_xl.setting_fields import check as _check
from transformer_xl.setting_fields import setting as _setting

__all__ = ["ModelSettings", "RunSettings", "TextSettings", "TrainingSettings"]

FILE_NAME = "settings.json"
UNFINISHED_FILE_NAME = f".{FILE_NAME}.unfinished"
OPTIMIZERS = ("adamw", "adam", "sgd", "adagrad", "muon")
SCHEDULES = ("cosine", "linear", "inverse_sqrt", "constant", "plateau")
AVERAGES = ("none", "mean", "exponential")
Precision = Literal["float32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class ModelSettings:
    """The shape of the model."""

    num_layers: int = _setting(4, "number of layers", at_least=1)
    width: int = _setting(128, "width of the hidden states and embeddings", at_least=2)
    num_heads: int = _setting(4, "number of attention heads; divides the width unless head_width is given", at_least=1)
    head_width: int | None = _setting(None, "width of a head; without it, width / num_heads", at_least=1)
    inner_width: int = _setting(256, "inner width of the feed-forward layers", at_least=1)
    embedding_width: int | None = _setting(
        None, "width of the embeddings of frequent symbols; without it, width", at_least=1
    )
    cutoffs: tuple[int, ...] | None = _setting(
        None,
        "ids at which rarer bands of embedding and softmax begin, 0 for no bands; without it, 10,000, 40,000 and "
        "200,000 as far as the vocabulary reaches",
    )
    band_divisor: int = _setting(1, "what the width of embeddings is divided by from band to band", at_least=1)
    tie_words: bool = _setting(True, "use the embeddings as the weights of the softmax too")
    tie_projections: bool = _setting(True, "project the rarer bands of embedding and softmax alike")
    share_biases: bool = _setting(False, "use the same content and position bias in all layers")
    share_position_projection: bool = _setting(
        False, "project distances like content, without weights or biases of their own"
    )
    memory_length: int = _setting(64, "past symbols that each layer remembers", at_least=0)
    initial_memory: str = _setting(
        "empty", "what a text begins with: empty, or zeros that are attended to", choices=INITIAL_MEMORIES
    )
    clamp_length: int = _setting(-1, "distance from which on all are equally far, -1 for no limit", at_least=-1)
    same_length: bool = _setting(False, "let each symbol see equally many others, rather than all that are at hand")
    pre_norm: bool = _setting(True, "normalise the input of each block rather than its output")
    dropout: float = _setting(0.0, "share of hidden values dropped while learning", at_least=0, below=1)
    attention_dropout: float = _setting(0.0, "share of attention weights dropped while learning", at_least=0, below=1)
    word_dropout: float = _setting(
        0.0, "share of the symbols that are dropped wherever they stand while learning", at_least=0, below=1
    )
    locked_input_dropout: float | None = _setting(
        None,
        "share of the embeddings' values dropped alike at all positions, in the place of dropout",
        at_least=0,
        below=1,
    )
    locked_attention_dropout: float | None = _setting(
        None, "the same for what goes into and comes out of the attention", at_least=0, below=1
    )
    locked_feed_forward_dropout: float | None = _setting(
        None, "the same for the feed-forward layers", at_least=0, below=1
    )
    locked_output_dropout: float | None = _setting(None, "the same for the last hidden values", at_least=0, below=1)
    sample_softmax: int = _setting(
        -1,
        "candidates from which the loss of a large vocabulary is estimated while learning, in the place of frequency "
        "bands; -1 for the exact loss",
        at_least=-1,
    )
    initial_std: float = _setting(0.02, "standard deviation of the first weights", at_least=0)
    initial_projection_std: float = _setting(0.01, "standard deviation of the first projections of bands", at_least=0)

    def __post_init__(self) -> None:
        _check(self)
        if self.width % 2 or (self.head_width is None and self.width % self.num_heads):
            raise ValueError(
                f"width is {self.width} and num_heads {self.num_heads}, but the width must be even and "
                "a multiple of the number of heads, unless head_width is given"
            )
        if self.cutoffs is not None:
            # Settings that were read from JSON bring a list.
            object.__setattr__(self, "cutoffs", tuple(cutoff for cutoff in self.cutoffs if cutoff != 0))


@dataclass(frozen=True)
class TrainingSettings:
    """How the model learns."""

    segment_length: int = _setting(64, "symbols that a stream advances in one step", at_least=1, fixed=True)
    batch_size: int = _setting(
        8, "streams of the text that are read side by side, by all processes together", at_least=1, fixed=True
    )
    micro_batches: int = _setting(
        1, "parts of a process's streams that are read one after the other, which needs less memory", at_least=1
    )
    steps: int = _setting(4000, "number of steps of the optimiser", at_least=1)
    minutes: float | None = _setting(
        None, "minutes that the run may last, evaluations included; when given, it takes the place of steps", above=0
    )
    optimizer: str = _setting(
        "adamw", "what moves the weights; muon is for the matrices, with adamw for the rest", choices=OPTIMIZERS
    )
    learning_rate: float = _setting(3e-3, "highest learning rate", above=0)
    schedule: str = _setting("cosine", "how the learning rate goes on after the warm-up", choices=SCHEDULES)
    final_learning_rate: float = _setting(
        0.05, "last or lowest learning rate, as a share of the highest", at_least=0, at_most=1
    )
    warm_up: float = _setting(0.05, "share of the run in which the learning rate rises from 0", at_least=0, below=1)
    warm_up_steps: int | None = _setting(
        None, "steps in which the learning rate rises from 0; when given, they take the place of warm_up", at_least=0
    )
    plateau_patience: int = _setting(
        0, "evaluations in a row that may better nothing before schedule plateau lowers the learning rate", at_least=0
    )
    plateau_factor: float = _setting(0.5, "what schedule plateau multiplies the learning rate by", above=0, below=1)
    beta1: float = _setting(0.9, "decay of Adam's average of gradients", at_least=0, below=1)
    beta2: float = _setting(0.99, "decay of Adam's average of squared gradients", at_least=0, below=1)
    momentum: float = _setting(0.95, "decay of the sum of gradients of muon and sgd", at_least=0, below=1)
    weight_decay: float | None = _setting(
        None,
        "decay of the weight matrices, while biases and norms have none; when not given, 0.1 for adamw and muon, whose "
        "decay is apart from the gradient, and 0 for the others, which add it to the gradient",
        at_least=0,
    )
    embedding_rate: float = _setting(
        1.0, "learning rate of the embeddings, as a multiple of that of everything else", above=0
    )
    scale_rate_by_length: bool = _setting(
        False, "scale the learning rate of a step by the length of its segment as a share of segment_length"
    )
    clip_norm: float = _setting(1.0, "largest norm of the gradient", above=0)
    largest_loss: float = _setting(
        3.0, "loss at which a run stops, as a multiple of that of guessing evenly among all symbols", above=1, free=True
    )
    half_loss: bool = _setting(False, "learn from the later half of each segment only, which sees the most")
    activation_regularization: float = _setting(
        0.0, "weight of the mean square of the last hidden values in what is minimised", at_least=0
    )
    temporal_activation_regularization: float = _setting(
        0.0, "weight of the mean square of their change from one position to the next", at_least=0
    )
    averaging: str = _setting(
        "none",
        "weights to validate and to keep: none for the last ones, mean for the mean of all steps since "
        "averaging_start, exponential for an average that forgets",
        choices=AVERAGES,
    )
    averaging_start: float = _setting(
        0.75,
        "share of the run after which weights are averaged; with mean, the schedule ends here",
        at_least=0,
        below=1,
    )
    averaging_learning_rate: float = _setting(
        1.0, "learning rate while the mean is taken, as a multiple of the last one before", above=0
    )
    averaging_decay: float = _setting(0.999, "what stays of an exponential average at each step", at_least=0, below=1)
    evaluations: int = _setting(10, "how often the validation text is scored, evenly spread to the end", at_least=1)
    seed: int = _setting(1, "seed of the first weights and of dropout", at_least=0, below=2**32)
    deterministic: bool = _setting(
        False, "use only operations that repeat to the bit; slower on a GPU, and a CPU does so anyway"
    )
    precision: Precision = _setting("float32", "numbers that matrices are multiplied in", choices=PRECISIONS)
    shard: bool = _setting(False, "share weights and optimiser out over the processes (FSDP2) instead of copying them")
    gradient_checkpointing: bool = _setting(
        False, "compute the layers again in the backward pass, which needs less memory"
    )
    compile: bool = _setting(False, "compile the model with torch.compile; the first steps take minutes")
    memory_on_cpu: bool = _setting(False, "keep the memory between two steps away from the GPU", free=True)
    save_minutes: float = _setting(
        10.0,
        "minutes between checkpoints, 0 for one after every step; one more comes with each evaluation",
        at_least=0,
        free=True,
    )
    keep_checkpoints: int = _setting(
        2, "newest checkpoints to keep; that of the best model stays", at_least=1, free=True
    )
    tracker: str | None = _setting(
        None, "where metrics are sent besides metrics.jsonl: tensorboard, wandb, ..., or several with commas", free=True
    )

    def __post_init__(self) -> None:
        _check(self)
        if self.warm_up_steps is not None and self.minutes is not None:
            raise ValueError(
                f"warm_up_steps is {self.warm_up_steps}, but the run lasts minutes, not steps: give warm_up as a share"
            )
        if self.warm_up_steps is not None and self.warm_up_steps >= self.steps:
            raise ValueError(
                f"warm_up_steps is {self.warm_up_steps:,}, but must be below the {self.steps:,} steps of the run"
            )
        if self.averaging == "mean" and self.averaging_start <= self.warm_up_share:
            raise ValueError(
                f"averaging_start is {self.averaging_start}, but the mean must begin after the warm-up, which lasts "
                f"{self.warm_up_share:.3g} of the run: give a later start or a shorter warm-up"
            )

    @property
    def warm_up_share(self) -> float:
        """The share of the run in which the learning rate rises."""
        return self.warm_up if self.warm_up_steps is None else self.warm_up_steps / self.steps


@dataclass(frozen=True)
class RunSettings:
    """A complete run: what is read, by which model, and how it learns."""

    text: TextSettings
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def save(self, folder: Path) -> None:
        """Writes `settings.json` into a folder."""
        path = folder / UNFINISHED_FILE_NAME
        path.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False), encoding="utf-8")
        path.replace(folder / FILE_NAME)

    @staticmethod
    def load(folder: Path) -> RunSettings:
        """The settings of a folder that `save` wrote to.

        Raises:
            FileNotFoundError: There are none.
            ValueError: They cannot be read, or are those of another version of this library.
        """
        path = folder / FILE_NAME
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            return RunSettings(**{name: settings(**saved[name]) for name, settings in GROUPS.items()})
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{str(folder)!r} holds no run, {FILE_NAME} is missing: give a run's folder"
            ) from None
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{str(path)!r} cannot be read ({error}): start a new run in another folder") from None


GROUPS: dict[str, type[Any]] = {"text": TextSettings, "model": ModelSettings, "training": TrainingSettings}


def is_untouched(folder: Path) -> bool:
    """Whether a folder holds nothing, or only what is left of a run that was killed before its settings were whole."""
    return not folder.is_dir() or all(path.name == UNFINISHED_FILE_NAME for path in folder.iterdir())


def refuse_changes(before: RunSettings, now: RunSettings, allowed: bool) -> None:
    """Refuses to go on with settings that differ from those that a run began with.

    Raises:
        ValueError: A setting differs that cannot, or one that may but was not `allowed` to.
    """
    changes, fixed = [], []
    for name, settings in GROUPS.items():
        for each in fields(settings):
            old, new = getattr(getattr(before, name), each.name), getattr(getattr(now, name), each.name)
            if old != new and not each.metadata.get("free"):
                changes.append(f"{each.name} was {old!r} and is {new!r}")
                if each.metadata.get("fixed"):
                    fixed.append(each.name)
    if fixed:
        raise ValueError(
            f"{', '.join(fixed)} cannot change while a run goes on ({'; '.join(changes)}): start a new run"
        )
    if changes and not allowed:
        raise ValueError(
            f"the settings are not those that the run began with ({'; '.join(changes)}): give the same, or allow the "
            "changes with --allow-changes (allow_changes=True)"
        )
