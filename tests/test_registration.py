"""The Auto classes know `transfo-xl`, whatever is imported first, and importing the package imports little."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

import transformer_xl
from transformer_xl import (
    TransfoXLConfig,
    TransfoXLForSequenceClassification,
    TransfoXLLMHeadModel,
    TransfoXLModel,
)

CLASSES = {
    AutoModel: TransfoXLModel,
    AutoModelForCausalLM: TransfoXLLMHeadModel,
    AutoModelForSequenceClassification: TransfoXLForSequenceClassification,
}


def tiny_config() -> TransfoXLConfig:
    return TransfoXLConfig(50, [10], 16, 16, 2, 8, 16, n_layer=1, mem_len=4, div_val=2)


def run_python(code: str, *arguments: str) -> str:
    """What a fresh interpreter prints."""
    source = str(Path(transformer_xl.__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("module", ["transformer_xl", "transformer_xl.configuration", "transformer_xl.registration"])
def test_importing_costs_neither_torch_nor_transformers(module: str) -> None:
    code = f"import sys, {module}; print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    assert run_python(code).strip() == "[]"


def test_bands_and_checks_work_without_torch() -> None:
    code = (
        "import sys\n"
        "from transformer_xl.configuration import check_configuration, frequency_bands\n"
        "print(len(frequency_bands(100, [10], 16, 2)), 'torch' in sys.modules)"
    )
    assert run_python(code).split() == ["2", "False"]


@pytest.mark.parametrize(
    "imports",
    [
        "from transformers import AutoConfig, AutoModelForCausalLM\nimport transformer_xl",
        "import transformer_xl\nfrom transformers import BertModel, AutoConfig, AutoModelForCausalLM",
        "import transformer_xl\nfrom transformers import Trainer, AutoConfig, AutoModelForCausalLM",
        "from transformer_xl import TransfoXLLMHeadModel\nfrom transformers import AutoConfig, AutoModelForCausalLM",
    ],
)
def test_the_auto_classes_know_the_models_in_whichever_order_things_are_imported(imports: str, tmp_path: Path) -> None:
    TransfoXLLMHeadModel(tiny_config()).save_pretrained(tmp_path)
    code = (
        f"import sys\n{imports}\n"
        "config = AutoConfig.from_pretrained(sys.argv[1])\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "print(type(config).__module__, type(model).__module__, type(model).__name__)"
    )
    expected = "transformer_xl.pretrained_config transformer_xl.modeling.heads TransfoXLLMHeadModel"
    assert run_python(code, str(tmp_path)).strip() == expected


@pytest.mark.parametrize("auto_class", CLASSES)
def test_a_configuration_makes_a_model_of_the_right_class(auto_class: type) -> None:
    assert type(auto_class.from_config(tiny_config())) is CLASSES[auto_class]


@pytest.mark.parametrize("auto_class", CLASSES)
def test_a_saved_model_opens_through_the_auto_classes(auto_class: type, tmp_path: Path) -> None:
    model = CLASSES[auto_class](tiny_config())
    model.save_pretrained(tmp_path)
    opened = auto_class.from_pretrained(tmp_path)
    assert type(opened) is type(model)
    assert opened.config.architectures == [type(model).__name__]
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in opened.state_dict().items())


def test_a_model_type_makes_a_configuration() -> None:
    config = AutoConfig.for_model("transfo-xl", n_layer=3)
    assert type(config) is TransfoXLConfig
    assert config.n_layer == 3


def test_every_public_name_can_be_imported_and_listed() -> None:
    assert set(transformer_xl.__all__) <= set(dir(transformer_xl))
    for name in transformer_xl.__all__:
        assert getattr(transformer_xl, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'TransfoXL'"):
        _ = transformer_xl.TransfoXL
