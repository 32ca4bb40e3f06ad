"""Writes tests/golden/legacy_tf_*.safetensors: what the TensorFlow classes of transformers 4.36.2 return.

Run by the environment that README.md beside this file describes: `python tests/oracles/write_legacy_tf.py`.
Weights and inputs are those of the file `legacy_hf_*` of the same case; running twice gives the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from safetensors import safe_open
from safetensors.numpy import save_file
from transformers import TFTransfoXLForSequenceClassification, TFTransfoXLLMHeadModel, TransfoXLConfig
from transformers.modeling_tf_pytorch_utils import load_pytorch_state_dict_in_tf2_model

GOLDEN_FOLDER = Path(__file__).resolve().parent.parent / "golden"

# The others need what these classes do not have: div_val 1, biases shared over the layers, a head mask.
CASES = (
    "classify_regression",
    "div_val_2_memory_shorter_than_segment",
    "div_val_2_untied_projections",
    "div_val_2_untied_words",
    "div_val_4_wide_embedding_untied_words_and_projections",
    "from_embeddings",
    "like_wikitext103",
)


def read(case: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The configuration and the arrays of a case."""
    with safe_open(GOLDEN_FOLDER / f"legacy_hf_{case}.safetensors", framework="numpy") as file:
        return json.loads(file.metadata()["config"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def build(case: str, config: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    """The TensorFlow model with the weights of the case.

    Not by `from_pretrained`, which leaves weights out silently: in 4.35 the tied ones, in 4.37 all.
    """
    classifies = case.startswith("classify_")
    model_class = TFTransfoXLForSequenceClassification if classifies else TFTransfoXLLMHeadModel
    model = model_class(TransfoXLConfig.from_dict(config))
    model(np.ones((1, 3), np.int32))  # creates the variables
    weights = {key.removeprefix("weights/"): array for key, array in arrays.items() if key.startswith("weights/")}
    model, report = load_pytorch_state_dict_in_tf2_model(
        model, weights, tf_inputs=False, allow_missing_keys=True, output_loading_info=True
    )
    assert not report["missing_keys"], report
    return model


def main() -> None:
    """Writes every case."""
    if transformers.__version__ != "4.36.2":
        raise SystemExit(f"This script needs transformers 4.36.2, not {transformers.__version__}.")
    for case in CASES:
        config, arrays = read(case)
        model, mems, outputs = build(case, config, arrays), None, {}
        for number in range(3):
            name = "input_ids" if f"{number}/input_ids" in arrays else "inputs_embeds"
            inputs = {name: arrays[f"{number}/{name}"]}
            output = model(inputs | {"mems": mems}, output_hidden_states=True, output_attentions=True)
            mems = output.mems
            scores = "logits" if case.startswith("classify_") else "prediction_scores"
            outputs |= {
                f"{number}/{scores}": output[scores].numpy(),
                f"{number}/mems": np.stack([layer.numpy() for layer in mems]),
                f"{number}/hidden_states": np.stack([layer.numpy() for layer in output.hidden_states]),
                f"{number}/attentions": np.stack([layer.numpy() for layer in output.attentions]),
            }
        path = GOLDEN_FOLDER / f"legacy_tf_{case}.safetensors"
        save_file(outputs, path, {"config": json.dumps(config, sort_keys=True)})
        print(f"{path.stat().st_size:7,d} bytes  {path.name}")


if __name__ == "__main__":
    main()
