"""Writes tests/golden/legacy_hf_*.safetensors: what the Transformer-XL of transformers 4.37.2 computes on tiny models.

Run by the environment that README.md beside this file describes: `python tests/oracles/write_legacy_hf.py`.
Every file holds its weights, its inputs and its outputs; running twice gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from safetensors.torch import save_file
from transformers import TransfoXLConfig, TransfoXLForSequenceClassification, TransfoXLLMHeadModel

GOLDEN_FOLDER = Path(__file__).resolve().parent.parent / "golden"
SEGMENT_LENGTHS = (6, 5, 7)
BATCH_SIZE = 2
PADDING = 0
NEVER_GENERATED = 39

BASE_CONFIG: dict[str, Any] = {
    "vocab_size": 40,
    "cutoffs": [12, 24],
    "d_model": 16,
    "d_embed": 16,
    "n_head": 2,
    "d_head": 6,
    "d_inner": 24,
    "div_val": 1,
    "n_layer": 2,
    "mem_len": 8,
    "clamp_len": -1,
    "same_length": False,
    "untie_r": True,
    "pre_lnorm": False,
    "dropout": 0.0,
    "dropatt": 0.0,
}


class Case(NamedTuple):
    """What a case changes in the base configuration, and what else it gives to `forward`."""

    config: dict[str, Any]
    head_mask: list[Any] | None = None
    from_embeddings: bool = False


LANGUAGE_MODELS: dict[str, Case] = {
    "plain": Case({}),
    "three_layers_one_cutoff": Case({"n_layer": 3, "cutoffs": [20], "d_inner": 16}),
    "no_cutoff": Case({"cutoffs": [], "clamp_len": 4}),
    "no_cutoff_narrow_embedding": Case({"cutoffs": [], "d_embed": 12, "same_length": True}),
    "one_cutoff_narrow_embedding": Case({"cutoffs": [20], "d_embed": 12}),
    "wide_embedding_untied_projections": Case({"d_embed": 24, "proj_share_all_but_first": False}),
    "like_wikitext103": Case({"div_val": 4, "same_length": True, "clamp_len": 5}),
    "div_val_2_memory_shorter_than_segment": Case(
        {"div_val": 2, "d_embed": 12, "mem_len": 4, "same_length": True, "clamp_len": 2}
    ),
    "div_val_2_untied_projections": Case({"div_val": 2, "proj_share_all_but_first": False}),
    "div_val_2_untied_words": Case({"div_val": 2, "tie_word_embeddings": False, "same_length": True}),
    "div_val_4_wide_embedding_untied_words_and_projections": Case(
        {"div_val": 4, "d_embed": 32, "tie_word_embeddings": False, "proj_share_all_but_first": False}
    ),
    "untied_words": Case({"tie_word_embeddings": False}),
    "shared_biases": Case({"untie_r": False, "clamp_len": 6}),
    "norm_first": Case({"pre_lnorm": True}),
    "norm_first_shared_biases_same_length": Case(
        {"pre_lnorm": True, "untie_r": False, "same_length": True, "clamp_len": 4, "div_val": 2}
    ),
    "no_memory": Case({"mem_len": 0}),
    "memory_longer_than_two_segments": Case({"mem_len": 15, "clamp_len": 9}),
    "head_mask_for_all_layers": Case({"same_length": True}, head_mask=[0.0, 1.0]),
    "head_mask_per_layer": Case({"pre_lnorm": True}, head_mask=[[1.0, 0.0], [0.5, 1.0]]),
    "from_embeddings": Case({"div_val": 2}, from_embeddings=True),
}

CLASSIFIERS: dict[str, Case] = {
    "classify_single_label": Case({"num_labels": 3, "problem_type": "single_label_classification"}),
    "classify_multi_label": Case({"num_labels": 3, "problem_type": "multi_label_classification", "pre_lnorm": True}),
    "classify_regression": Case({"num_labels": 1, "problem_type": "regression", "div_val": 2, "same_length": True}),
}

GENERATORS: dict[str, Case] = {
    # Words are untied: a model of random weights that are tied repeats its input.
    "generate_long_memory_same_length": Case(
        {"mem_len": 12, "same_length": True, "clamp_len": 7, "cutoffs": [], "tie_word_embeddings": False}
    ),
    "generate_short_memory": Case({"mem_len": 3, "pre_lnorm": True, "tie_word_embeddings": False}),
}


def fill_parameters(model: torch.nn.Module, generator: torch.Generator, deviation: float = 0.3) -> None:
    """Fills every parameter with noise, large enough that no term of the formula vanishes and no attention is flat."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            center = 1.0 if name.endswith("layer_norm.weight") else 0.0
            parameter.copy_(center + deviation * torch.randn(parameter.shape, generator=generator))


def random_ids(config: TransfoXLConfig, batch_size: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """Ids [B, T] without the padding id and the id that is never generated."""
    return torch.randint(PADDING + 1, config.vocab_size - 1, (batch_size, length), generator=generator)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The gradient of every parameter, tied ones once; zeros where the loss does not depend on the parameter."""
    return {
        f"gradients/{name}": torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }


def traces(output: Any) -> dict[str, torch.Tensor]:
    """What every class returns, stacked over the layers."""
    stacks = {"hidden_states": output.hidden_states, "attentions": output.attentions, "mems": output.mems}
    return {name: torch.stack(tuple(layers)) for name, layers in stacks.items() if layers is not None}


def language_model_segments(
    model: TransfoXLLMHeadModel, case: Case, generator: torch.Generator
) -> Iterable[dict[str, torch.Tensor]]:
    """Inputs and outputs of consecutive segments, losses in the order of the tokens; yields with the graph attached."""
    model.crit.keep_order = True
    head_mask = None if case.head_mask is None else torch.tensor(case.head_mask)
    mems = None
    for number, length in enumerate(SEGMENT_LENGTHS):
        ids = random_ids(model.config, BATCH_SIZE, length, generator)
        labels = ids.clone()
        if number == 1:
            labels[0, 2] = labels[1, 4] = -100
        inputs = {"input_ids": ids}
        if case.from_embeddings:
            inputs = {"inputs_embeds": torch.randn(BATCH_SIZE, length, model.config.d_model, generator=generator)}
        # Clones, because this version scales embeddings and replaces labels in place.
        scored = model(
            **{name: tensor.clone() for name, tensor in inputs.items()},
            mems=mems,
            head_mask=head_mask,
            output_hidden_states=True,
            output_attentions=True,
        )
        trained = model(
            **{name: tensor.clone() for name, tensor in inputs.items()},
            mems=mems,
            head_mask=head_mask,
            labels=labels.clone(),
        )
        mems = scored.mems
        segment = {
            **inputs,
            "labels": labels,
            **traces(scored),
            "prediction_scores": scored.prediction_scores,
            "losses": trained.losses,
            "loss": trained.loss,
        }
        yield segment if head_mask is None else {**segment, "head_mask": head_mask}


def classifier_segments(
    model: TransfoXLForSequenceClassification, generator: torch.Generator
) -> Iterable[dict[str, torch.Tensor]]:
    """Inputs and outputs of consecutive segments with padding on the right; yields with the graph attached."""
    kind, batch_size, mems = model.config.problem_type, 3, None
    for length in SEGMENT_LENGTHS:
        ids = random_ids(model.config, batch_size, length, generator)
        ids[0, 4:] = ids[1, 2:] = PADDING
        if kind == "single_label_classification":
            labels = torch.randint(model.config.num_labels, (batch_size,), generator=generator)
        elif kind == "multi_label_classification":
            labels = torch.randint(2, (batch_size, model.config.num_labels), generator=generator).float()
        else:
            labels = torch.randn(batch_size, generator=generator)
        output = model(ids, mems=mems, labels=labels, output_hidden_states=True, output_attentions=True)
        mems = output.mems
        yield {"input_ids": ids, "labels": labels, **traces(output), "logits": output.logits, "loss": output.loss}


def generated(model: TransfoXLLMHeadModel, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A prompt and its greedy and beam continuations; the end of sequence never comes up."""
    with torch.no_grad():
        model.crit.out_layers[-1].bias[-1] = -30.0
    prompt = random_ids(model.config, BATCH_SIZE, 5, generator)
    settings = {"max_new_tokens": 20, "do_sample": False, "return_dict_in_generate": True, "output_scores": True}
    greedy = model.generate(prompt, **settings)
    beams = model.generate(prompt, num_beams=3, **settings)
    assert not (greedy.sequences == NEVER_GENERATED).any()
    assert not (beams.sequences == NEVER_GENERATED).any()
    return {
        "prompt": prompt,
        "greedy": greedy.sequences,
        "greedy_scores": torch.stack(greedy.scores, dim=1),
        "beams": beams.sequences,
        "beam_scores": beams.sequences_scores,
    }


def write(name: str, model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Writes one golden file: weights and tensors, and the `config.json` of this version as metadata."""
    weights = {f"weights/{key}": tensor for key, tensor in model.state_dict().items()}
    arrays = {key: tensor.detach().clone().contiguous() for key, tensor in {**weights, **tensors}.items()}
    # One metadata entry only: the file format does not keep the order of several.
    metadata = {"config": json.dumps(model.config.to_diff_dict(), sort_keys=True)}
    path = GOLDEN_FOLDER / f"legacy_hf_{name}.safetensors"
    save_file(arrays, path, metadata)
    print(f"{path.stat().st_size:7,d} bytes  {path.name}")


def write_segments(name: str, model: torch.nn.Module, segments: Iterable[dict[str, torch.Tensor]]) -> None:
    """Writes a case whose loss is the sum of the losses of its segments."""
    numbered = list(segments)
    sum(segment["loss"] for segment in numbered).backward()
    tensors = {f"{number}/{key}": tensor for number, segment in enumerate(numbered) for key, tensor in segment.items()}
    write(name, model, {**tensors, **gradients(model)})


def main() -> None:
    """Writes every case."""
    if transformers.__version__ != "4.37.2":
        raise SystemExit(f"This script needs transformers 4.37.2, not {transformers.__version__}.")
    torch.set_num_threads(1)
    for name, case in LANGUAGE_MODELS.items():
        generator = torch.Generator().manual_seed(0)
        model = TransfoXLLMHeadModel(TransfoXLConfig(**BASE_CONFIG | case.config))
        fill_parameters(model, generator)
        write_segments(name, model, language_model_segments(model, case, generator))
    for name, case in CLASSIFIERS.items():
        generator = torch.Generator().manual_seed(0)
        classifier = TransfoXLForSequenceClassification(
            TransfoXLConfig(**BASE_CONFIG | case.config, pad_token_id=PADDING)
        )
        fill_parameters(classifier, generator)
        write_segments(name, classifier, classifier_segments(classifier, generator))
    for name, case in GENERATORS.items():
        generator = torch.Generator().manual_seed(0)
        model = TransfoXLLMHeadModel(
            TransfoXLConfig(**BASE_CONFIG | case.config, eos_token_id=NEVER_GENERATED, pad_token_id=PADDING)
        )
        fill_parameters(model, generator, deviation=0.6)
        write(name, model, generated(model, generator))


if __name__ == "__main__":
    main()
