"""Looks at an old model, chooses a reader, and writes one of our folders."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, GenerationMixin
from transformers.utils import GENERATION_CONFIG_NAME

from transformer_xl.conversion.legacy_files import read_legacy_file
from transformer_xl.conversion.legacy_hf import CONFIG_FILE, VOCABULARY_FILES, read_legacy_hf
from transformer_xl.conversion.legacy_vocabulary import LegacyVocabulary, read_vocabulary
from transformer_xl.conversion.original_tf import checkpoint_prefix, read_original_tf
from transformer_xl.conversion.original_torch import NVIDIA_KEYS, read_nvidia, read_original_torch
from transformer_xl.conversion.source_model import SourceModel, build_model
from transformer_xl.text.tokenizer import TransfoXLTokenizer

__all__ = ["KINDS", "Conversion", "convert"]

# The kinds of source and their readers, in the order of the documentation.
KINDS: dict[str, Callable[[Path], SourceModel]] = {
    "legacy-hf": read_legacy_hf,
    "original-torch": read_original_torch,
    "nvidia": read_nvidia,
    "original-tf": read_original_tf,
}
TOKENIZER_SETTINGS = {"special", "min_freq", "max_size", "lower_case", "delimiter", "language", "never_split"}
TOKENIZER_SETTINGS |= {"unk_token", "eos_token", "bos_token", "pad_token", "additional_special_tokens"}


@dataclass(frozen=True)
class Conversion:
    """What a conversion did; printed, it is a report.

    Attributes:
        found: What was found, a sentence each.
        changed: What is different in the new folder and why.
        dropped: What did not come along and why.
    """

    found: list[str]
    changed: list[str]
    dropped: list[str]

    def __str__(self) -> str:
        lines = [("found", self.found), ("changed", self.changed), ("dropped", self.dropped)]
        return "\n".join(f"{title}: {sentence}" for title, sentences in lines for sentence in sentences)


def convert(
    source: str | Path,
    out: str | Path,
    kind: str | None = None,
    vocabulary: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Conversion:
    """Write a model of another program as a folder of this library; nothing in the old files is run.

    Args:
        source: A folder of transformers 4; a work folder or `model.pt` of the authors' PyTorch code; a checkpoint of
            NVIDIA's; or a folder or checkpoint of the authors' TensorFlow code.
        out: The new folder; it must not exist yet, or be empty.
        kind: One of `KINDS`, if the source is not to be looked at for its kind.
        vocabulary: A file of `read_vocabulary`, instead of the one that is found with the source.
        changes: Fields of `TransfoXLConfig` to set, such as those that no file records.

    Returns:
        What was found, changed and dropped.

    Raises:
        FileNotFoundError: There is no such source.
        FileExistsError: `out` holds something.
        ValueError: The source is broken or of no known kind; the sentence names the file.

    Example:
        >>> print(convert("pretrained_xl/tf_wt103", "wt103"))
    """
    source, out = Path(source), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{str(out)!r} exists and is not an empty folder: give the name of a new one")
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, but may be one of {', '.join(KINDS)}")
    found = _read(source, kind)
    model, unused = build_model(found, changes or {})
    _keep_generation_settings(model, found, source)
    given = read_vocabulary(vocabulary) if vocabulary is not None else found.vocabulary
    tokenizer = _tokenizer(source, given, found.already_split)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        unfinished = Path(folder) / out.name
        model.save_pretrained(unfinished)
        if tokenizer is not None:
            tokenizer.save_pretrained(unfinished)
        if out.exists():
            out.rmdir()
        unfinished.rename(out)
    if not found.guessed <= (changes or {}).keys():
        found.changed.append(found.guess)
    return _report(found, model, tokenizer, unused)


def _read(source: Path, kind: str | None) -> SourceModel:
    if not source.exists() and checkpoint_prefix(source) is None:
        raise FileNotFoundError(f"there is no {str(source)!r}: give a folder, a file or the prefix of a checkpoint")
    if kind is not None:
        return KINDS[kind](source)
    if (source / CONFIG_FILE).is_file():
        return read_legacy_hf(source)
    if checkpoint_prefix(source) is not None:
        return read_original_tf(source)
    if (source / "model.pt").is_file():
        return read_original_torch(source)
    if source.is_dir() and any(source.glob("checkpoint_*.pt")):
        return read_nvidia(source)
    if source.is_dir():
        raise ValueError(
            f"{str(source)!r} is of no known kind: it holds neither config.json, nor model.pt, nor "
            "checkpoint_best.pt, nor a checkpoint of TensorFlow"
        )
    content = read_legacy_file(source)
    nvidia = isinstance(content, dict) and content.keys() >= NVIDIA_KEYS
    return read_nvidia(source, content) if nvidia else read_original_torch(source, content)


def _keep_generation_settings(model: Any, found: SourceModel, source: Path) -> None:
    # Of text that was split before, `<eos>` is a line end, whatever transformers 4 wrote down.
    named = isinstance(model, GenerationMixin) and not found.already_split
    if named and (source / GENERATION_CONFIG_NAME).is_file():
        model.generation_config = GenerationConfig.from_pretrained(source)


def _tokenizer(source: Path, vocabulary: LegacyVocabulary | None, already_split: bool) -> TransfoXLTokenizer | None:
    if vocabulary is None:
        found = source.is_dir() and any((source / name).is_file() for name in VOCABULARY_FILES)
        return TransfoXLTokenizer.from_pretrained(source) if found else None
    settings = {name: value for name, value in vocabulary.settings.items() if name in TOKENIZER_SETTINGS}
    if already_split:
        # Their vocabularies need not hold these, and a model has no embedding for what is added.
        known = set(vocabulary.symbols)
        settings["eos_token"] = "<eos>" if "<eos>" in known else None
        settings["unk_token"] = next((symbol for symbol in ("<unk>", "<UNK>") if symbol in known), None)
        settings["additional_special_tokens"] = []
    return TransfoXLTokenizer(
        symbols=vocabulary.symbols, counts=vocabulary.counts, already_split=already_split, **settings
    )


def _report(source: SourceModel, model: Any, tokenizer: TransfoXLTokenizer | None, unused: list[str]) -> Conversion:
    config = model.config
    num_parameters = sum(weight.numel() for weight in model.parameters())
    found = [
        source.origin,
        f"a {source.head} of {num_parameters:,} parameters: {config.n_layer} layers, width {config.d_model}, "
        f"{config.n_head} heads, {config.vocab_size:,} tokens, attn_type {config.attn_type}",
    ]
    changed, dropped = list(source.changed), list(source.dropped)
    if tokenizer is None:
        found.append("no vocabulary, so the new folder has no tokenizer; give a file by --vocabulary")
    else:
        known = tokenizer.vocab_size
        found.append(
            f"a vocabulary of {known:,} symbols"
            + ("" if known == config.vocab_size else f", which is not the {config.vocab_size:,} of the model")
        )
    if unused:
        dropped.append(f"{len(unused)} weights that the model does not have: {', '.join(unused[:5])}")
    return Conversion(found, changed, dropped)
