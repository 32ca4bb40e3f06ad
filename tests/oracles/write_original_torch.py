"""Writes tests/golden/original_torch_*.safetensors: what the authors' PyTorch code computes on tiny models.

Run with a checkout of kimiyoung/transformer-xl, by the environment that README.md beside this file describes:
`python tests/oracles/write_original_torch.py PATH_TO_CHECKOUT`. Running twice gives the same bytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file

GOLDEN_FOLDER = Path(__file__).resolve().parent.parent / "golden"
SEGMENT_LENGTHS = (5, 6, 4)
BATCH_SIZE = 2

BASE_CONFIG: dict[str, Any] = {
    "vocab_size": 40,
    "cutoffs": [],
    "d_model": 16,
    "d_embed": 16,
    "n_head": 2,
    "d_head": 8,
    "d_inner": 24,
    "div_val": 1,
    "n_layer": 2,
    "tgt_len": 6,
    "ext_len": 0,
    "mem_len": 8,
    "clamp_len": -1,
    "same_length": False,
    "untie_r": False,
    "pre_lnorm": False,
    "tie_word_embeddings": True,
    "proj_share_all_but_first": True,
    "dropout": 0.0,
    "dropatt": 0.0,
    "initial_memory": "empty",
}

CASES: dict[str, dict[str, Any]] = {
    "type_0": {"attn_type": 0, "d_head": 6},
    "type_0_memory_shorter_than_segment": {"attn_type": 0, "mem_len": 3, "clamp_len": 5},
    "type_0_same_length_two_cutoffs": {"attn_type": 0, "same_length": True, "cutoffs": [12, 24], "d_embed": 12},
    "type_0_same_length_short_memory": {"attn_type": 0, "same_length": True, "mem_len": 3, "clamp_len": 1},
    "type_0_div_val_2_three_cutoffs": {"attn_type": 0, "div_val": 2, "cutoffs": [10, 20, 30]},
    "type_0_untied": {
        "attn_type": 0,
        "div_val": 2,
        "cutoffs": [12, 24],
        "tie_word_embeddings": False,
        "proj_share_all_but_first": False,
    },
    "type_0_norm_first": {"attn_type": 0, "pre_lnorm": True},
    "type_0_extended_context": {"attn_type": 0, "ext_len": 2},
    "type_1": {"attn_type": 1, "d_head": 6},
    "type_1_memory_shorter_than_segment": {"attn_type": 1, "mem_len": 3, "same_length": True},
    "type_1_clamped_norm_first": {"attn_type": 1, "clamp_len": 4, "pre_lnorm": True},
    "type_1_longer_than_its_tables": {"attn_type": 1, "tgt_len": 2, "cutoffs": [20], "div_val": 2},
    "type_2": {"attn_type": 2, "d_head": 6},
    "type_2_memory_shorter_than_segment": {"attn_type": 2, "mem_len": 3, "cutoffs": [20]},
    "type_2_clamped_norm_first": {"attn_type": 2, "clamp_len": 4, "pre_lnorm": True},
    "type_3": {"attn_type": 3},
    "type_3_memory_shorter_than_segment": {"attn_type": 3, "mem_len": 3, "cutoffs": [20]},
    "type_3_norm_first": {"attn_type": 3, "pre_lnorm": True},
    "type_3_longer_than_its_tables": {"attn_type": 3, "tgt_len": 1, "cutoffs": [20], "div_val": 2},
}


class Segment(NamedTuple):
    """What goes into and comes out of one call, batch first."""

    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]
    mean_loss: torch.Tensor


def import_authors_code(checkout: Path) -> Any:
    """The authors' module `mem_transformer`, made to run on a current PyTorch without a change to their files."""
    if not (checkout / "pytorch" / "mem_transformer.py").is_file():
        raise SystemExit(f"{checkout} is not a checkout of kimiyoung/transformer-xl.")
    sys.path[:0] = [str(checkout / "pytorch"), str(checkout / "pytorch" / "utils")]
    # Their code parses the version of CUDA when it is imported; a build for the CPU has none.
    torch.version.cuda = torch.version.cuda or "12.0"
    # Their masks are bytes, which `masked_fill` no longer takes.
    torch.Tensor.byte = torch.Tensor.bool  # type: ignore[method-assign, assignment]
    import mem_transformer

    return mem_transformer


def build(authors: Any, config: dict[str, Any]) -> torch.nn.Module:
    """The authors' language model of a configuration of ours, its losses in the order of the tokens."""
    model = authors.MemTransformerLM(
        n_token=config["vocab_size"],
        **{name: config[name] for name in ("n_layer", "n_head", "d_model", "d_head", "d_inner", "dropout", "dropatt")},
        **{name: config[name] for name in ("d_embed", "div_val", "pre_lnorm", "tgt_len", "ext_len", "mem_len")},
        **{name: config[name] for name in ("cutoffs", "same_length", "attn_type", "clamp_len")},
        tie_weight=config["tie_word_embeddings"],
        tie_projs=[False] + [config["proj_share_all_but_first"]] * len(config["cutoffs"]),
    )
    model.crit.keep_order = True
    return model


def fill_parameters(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Fills every parameter with noise, large enough that no term of the formula vanishes and no attention is flat."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            center = 1.0 if name.endswith("layer_norm.weight") else 0.0
            parameter.copy_(center + 0.3 * torch.randn(parameter.shape, generator=generator))


def published(name: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
    """A weight or gradient under our name; tail cluster i is the i-th last row of theirs, and the i-th of ours."""
    if name in ("crit.cluster_weight", "crit.cluster_bias"):
        return name, tensor.flip(0)
    return (name if name.startswith("crit.") else f"transformer.{name}"), tensor


def published_weights(model: torch.nn.Module, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Copies of all weights as `weights/NAME`; biases that all layers share stand under the name of each too."""
    weights = dict(published(key, tensor.clone()) for key, tensor in model.state_dict().items())
    if config["attn_type"] == 0:
        for layer in range(config["n_layer"]):
            for bias in ("r_w_bias", "r_r_bias"):
                weights[f"transformer.layers.{layer}.dec_attn.{bias}"] = weights[f"transformer.{bias}"]
    return {f"weights/{key}": tensor for key, tensor in weights.items()}


def run_segment(model: Any, tokens: torch.Tensor, start: int, stop: int, mems: list[torch.Tensor]) -> Segment:
    """Predicts the tokens after [start, stop) of [B, N] tokens, reading `ext_len` more tokens before them."""
    extended = model.ext_len if start else 0
    inputs, targets = tokens[:, start - extended : stop], tokens[:, start + 1 : stop + 1]
    hidden_states: list[torch.Tensor] = []
    update_mems = type(model)._update_mems

    def recording_update_mems(hidden: list[torch.Tensor], *arguments: Any) -> Any:
        hidden_states.extend(layer.detach().clone() for layer in hidden)
        return update_mems(model, hidden, *arguments)

    model._update_mems = recording_update_mems
    # Clones, because types 2 and 3 add positions to the memory in place.
    losses, *new_mems = model(inputs.T.contiguous(), targets.T.contiguous(), *(memory.clone() for memory in mems))
    padding = torch.zeros(BATCH_SIZE, extended)
    return Segment(
        inputs={"input_ids": inputs, "targets": torch.cat([padding.long() - 100, targets], dim=1)},
        outputs={
            "losses": torch.cat([padding, losses.T], dim=1),
            "loss": losses.mean(),
            "hidden_states": torch.stack(hidden_states).transpose(1, 2),
            "mems": torch.stack(new_mems),
        },
        mean_loss=losses.mean(),
    )


def first_memory(model: Any, tokens: torch.Tensor, config: dict[str, Any]) -> tuple[int, list[torch.Tensor]]:
    """Where the first segment starts, and its memory: empty, or after a warm-up if the context is extended.

    The authors' code exchanges the lengths of memory and segment where it cuts the memory, which is right only if the
    memory is at least `ext_len` long. So the warm-up runs without extended context, and its memory loses what will be
    read again, as the comment in their code says.
    """
    if not config["ext_len"]:
        return 0, [torch.zeros(0, BATCH_SIZE, config["d_model"]) for _ in range(config["n_layer"] + 1)]
    length = config["tgt_len"]
    model.reset_length(length, 0, config["mem_len"])
    with torch.no_grad():
        _, *mems = model(tokens[:, :length].T.contiguous(), tokens[:, 1 : length + 1].T.contiguous())
    model.reset_length(length, config["ext_len"], config["mem_len"])
    return length, [memory[: length - config["ext_len"]] for memory in mems]


def write_case(authors: Any, name: str, config: dict[str, Any]) -> None:
    """Writes one golden file: weights, the memory at the start, segments, and gradients of the sum of their losses."""
    generator = torch.Generator().manual_seed(0)
    model = build(authors, config)
    fill_parameters(model, generator)
    length = config["tgt_len"] + sum(SEGMENT_LENGTHS) + 1
    tokens = torch.randint(config["vocab_size"], (BATCH_SIZE, length), generator=generator)
    start, mems = first_memory(model, tokens, config)
    # They keep the output of the last layer too, which nothing reads.
    arrays = {"initial_mems": torch.stack(mems[:-1])}
    total = torch.zeros(())
    for number, segment_length in enumerate(SEGMENT_LENGTHS):
        segment = run_segment(model, tokens, start, start + segment_length, mems)
        start, mems = start + segment_length, list(segment.outputs["mems"])
        total = total + segment.mean_loss
        segment.outputs["mems"] = segment.outputs["mems"][:-1]
        arrays |= {f"{number}/{key}": tensor for key, tensor in {**segment.inputs, **segment.outputs}.items()}
    total.backward()
    arrays |= published_weights(model, config)
    for key, parameter in model.named_parameters():
        ours, gradient = published(key, parameter.grad)
        arrays[f"gradients/{ours}"] = gradient
    path = GOLDEN_FOLDER / f"original_torch_{name}.safetensors"
    metadata = {"config": json.dumps(config, sort_keys=True)}
    save_file({key: tensor.detach().clone().contiguous() for key, tensor in arrays.items()}, path, metadata)
    print(f"{path.stat().st_size:7,d} bytes  {path.name}")


def main() -> None:
    """Writes every case."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python tests/oracles/write_original_torch.py PATH_TO_CHECKOUT")
    torch.set_num_threads(1)
    authors = import_authors_code(Path(sys.argv[1]))
    for name, changes in CASES.items():
        write_case(authors, name, BASE_CONFIG | changes)


if __name__ == "__main__":
    main()
