"""Each kind of old model becomes a folder of ours, with the scores of the program that wrote it.

The files of tests/golden/conversion were written by those programs (tests/oracles).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from transformer_xl.conversion.convert import KINDS, convert
from transformer_xl.conversion.legacy_vocabulary import read_corpus, read_vocabulary
from transformer_xl.modeling.heads import TransfoXLForSequenceClassification, TransfoXLLMHeadModel
from transformer_xl.modeling.model import TransfoXLModel
from transformer_xl.pretrained_config import TransfoXLConfig
from transformer_xl.text.tokenizer import TransfoXLTokenizer

from .hostile_files import CALLS, PACKINGS, WRAPPINGS, mutated, one_sentence_about, plain

GOLDEN = Path(__file__).parents[1] / "golden" / "conversion"
RELATIVE_TOLERANCE = 1e-5


def folders(kind: str) -> list[str]:
    return sorted(path.name for path in GOLDEN.glob(f"{kind}_*") if path.is_dir())


ORIGINAL = [*folders("torch"), *folders("nvidia"), *folders("tf")]


def expected(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / name / "expected.json").read_text(encoding="utf-8"))


def assert_close(ours: torch.Tensor, theirs: Any) -> None:
    theirs = torch.tensor(theirs)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= RELATIVE_TOLERANCE * theirs.abs().max()


def flags(name: str) -> dict[str, Any]:
    """What no file of TensorFlow records; with same_length their tokens see one position more."""
    if not name.startswith("tf_"):
        return {}
    config = expected(name)["config"]
    changes = {key: config[key] for key in ("same_length", "clamp_len")}
    return {**changes, "mem_len": config["mem_len"] + config["same_length"]}


@pytest.mark.parametrize("name", ORIGINAL)
def test_the_losses_are_those_of_the_authors_programs(name: str, tmp_path: Path) -> None:
    convert(GOLDEN / name, tmp_path / "out", changes=flags(name))
    model = TransfoXLLMHeadModel.from_pretrained(tmp_path / "out").eval()
    golden = expected(name)
    tokens, length, mems = torch.tensor(golden["tokens"]), golden["segment_length"], None
    for number, losses in enumerate(golden["losses"]):
        start, stop = number * length, (number + 1) * length
        output = model(tokens[:, start:stop], mems=mems, shift_labels=tokens[:, start + 1 : stop + 1])
        mems = output.mems
        assert_close(output.losses, losses)


CLASSES = {"classifier": TransfoXLForSequenceClassification, "no_head": TransfoXLModel}


@pytest.mark.parametrize("name", [*folders("hf"), *folders("keras")])
def test_the_outputs_are_those_of_transformers_4(name: str, tmp_path: Path) -> None:
    if name.startswith("keras_"):
        pytest.importorskip("h5py")
    convert(GOLDEN / name, tmp_path / "out")
    model_class = CLASSES.get(name.partition("_")[2], TransfoXLLMHeadModel)
    model, report = model_class.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"]
    golden = expected(name)
    tokens = torch.tensor(golden["tokens"])
    first = model.eval()(tokens[:, :4])
    assert_close(first[0], golden["outputs"][0])
    assert_close(model(tokens[:, 4:], mems=first.mems)[0], golden["outputs"][1])


@pytest.mark.parametrize("name", ["hf_zip", "torch_type_0", "nvidia_adaptive", "tf_wt103_large"])
def test_the_new_folder_has_text_and_safetensors_only(name: str, tmp_path: Path) -> None:
    report = convert(GOLDEN / name, tmp_path / "out")
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".txt", ".safetensors"}
    assert os.listdir(tmp_path) == ["out"]
    assert str(report).startswith("found: ")


@pytest.mark.parametrize("name", ["hf_zip", "hf_old", "torch_type_0_old", "nvidia_untied", "tf_lm1b", "tf_enwik8"])
def test_the_tokenizer_has_the_ids_of_the_old_vocabulary(name: str, tmp_path: Path) -> None:
    convert(GOLDEN / name, tmp_path / "out")
    file = next(GOLDEN / name / file for file in os.listdir(GOLDEN / name) if file in VOCABULARIES)
    symbols = read_vocabulary(file).symbols
    tokenizer = TransfoXLTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_ids_to_tokens(range(len(symbols))) == symbols
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert len(tokenizer) == config["vocab_size"] == len(symbols)


VOCABULARIES = ("vocab.pkl", "cache.pt", "cache.pkl", "checkpoint_best.pt")


def test_text_of_the_authors_corpora_is_split_on_white_space(tmp_path: Path) -> None:
    convert(GOLDEN / "torch_type_0", tmp_path / "out")
    tokenizer = TransfoXLTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.tokenize("the cat, sat\n") == ["the", "cat,", "sat", "<eos>"]


def test_generation_does_not_stop_at_line_ends(tmp_path: Path) -> None:
    convert(GOLDEN / "torch_type_0", tmp_path / "out")
    model = TransfoXLLMHeadModel.from_pretrained(tmp_path / "out")
    assert model.config.eos_token_id == 0
    assert model.generation_config.eos_token_id is None


def test_the_report_says_what_was_found_changed_and_dropped(tmp_path: Path) -> None:
    report = convert(GOLDEN / "nvidia_adaptive", tmp_path / "out")
    assert "2 layers, width 8, 2 heads, 22 tokens, attn_type 0" in str(report)
    assert any("reverse order" in sentence for sentence in report.changed)
    assert any("initial_memory is 'empty'" in sentence for sentence in report.changed)
    assert any("optimizer_state" in sentence for sentence in report.dropped)


def test_what_no_file_of_tensorflow_records_is_said_unless_it_is_set(tmp_path: Path) -> None:
    report = convert(GOLDEN / "tf_wt103_large", tmp_path / "guessed")
    assert any("(1600, 1000, True); mem_len is 1601" in sentence for sentence in report.changed)
    report = convert(GOLDEN / "tf_wt103_large", tmp_path / "set", changes=flags("tf_wt103_large"))
    assert report.changed == []
    shutil.copytree(GOLDEN / "tf_wt103_large", tmp_path / "source")
    (tmp_path / "source" / "corpus-info.json").unlink()
    report = convert(tmp_path / "source", tmp_path / "unknown")
    assert any("this library's defaults" in sentence for sentence in report.changed)


def test_clusters_of_pytorch_are_reversed_and_of_tensorflow_are_not(tmp_path: Path) -> None:
    from transformer_xl.conversion.legacy_files import read_legacy_file

    convert(GOLDEN / "nvidia_adaptive", tmp_path / "nvidia")
    state = read_legacy_file(GOLDEN / "nvidia_adaptive" / "checkpoint_best.pt")["model_state"]
    ours = load_file(tmp_path / "nvidia" / "model.safetensors")
    for name in ("crit.cluster_weight", "crit.cluster_bias"):
        assert torch.equal(ours[name], state[name].flip(0))


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("torch_type_1/model.pt", None),
        ("nvidia_type_3/checkpoint_best.pt", None),
        ("tf_enwik8/model.ckpt-1", None),
        ("tf_enwik8/model.ckpt-1.index", None),
        ("tf_enwik8", "original-tf"),
        ("nvidia_type_3", "nvidia"),
        ("torch_type_2", "original-torch"),
        ("hf_old", "legacy-hf"),
    ],
)
def test_a_source_may_be_a_folder_a_file_or_a_prefix(source: str, kind: str | None, tmp_path: Path) -> None:
    convert(GOLDEN / source, tmp_path / "out", kind=kind)
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_the_layout_of_the_released_tensorflow_models_is_known(tmp_path: Path) -> None:
    """tf/sota/download.sh of the authors makes a folder with `model` and `data`."""
    (tmp_path / "tf_wt103").mkdir()
    shutil.copytree(GOLDEN / "tf_wt103_large", tmp_path / "tf_wt103" / "model")
    (tmp_path / "tf_wt103" / "data").mkdir()
    for file in ("cache.pkl", "corpus-info.json"):
        shutil.move(tmp_path / "tf_wt103" / "model" / file, tmp_path / "tf_wt103" / "data")
    report = convert(tmp_path / "tf_wt103", tmp_path / "out")
    assert "a vocabulary of 37 symbols" in report.found


def test_a_vocabulary_may_be_given(tmp_path: Path) -> None:
    report = convert(GOLDEN / "torch_type_1" / "model.pt", tmp_path / "out", vocabulary=GOLDEN / "hf_zip" / "vocab.pkl")
    assert "a vocabulary of 23 symbols, which is not the 17 of the model" in report.found[-1]


def test_a_module_within_data_parallel_is_found(tmp_path: Path) -> None:
    """Torch before 1.6 kept the wrapper if the whole of it was saved."""
    source = (GOLDEN / "torch_type_1" / "model.pt").read_bytes()
    assert source[:2] == b"PK"
    from transformer_xl.conversion.legacy_files import read_legacy_file
    from transformer_xl.conversion.original_torch import read_original_torch
    from transformer_xl.conversion.unpickling import StandIn

    module = read_legacy_file(GOLDEN / "torch_type_1" / "model.pt")
    wrapper = StandIn(origin=StandIn("torch.nn.parallel", "DataParallel"), state={"_modules": {"module": module}})
    assert read_original_torch(GOLDEN / "torch_type_1" / "model.pt", wrapper).settings["attn_type"] == 1


def test_the_corpora_of_both_programs_are_read() -> None:
    theirs = [read_corpus(GOLDEN / "torch_type_0" / "cache.pt"), read_corpus(GOLDEN / "tf_wt103_large" / "cache.pkl")]
    for corpus in theirs:
        assert corpus.dataset == "wt103"
        assert corpus.vocabulary is not None
        assert corpus.splits.keys() == {"train", "valid", "test"}
        assert corpus.splits["train"].max() < len(corpus.vocabulary.symbols)
    words = [theirs[0].vocabulary.symbols[index] for index in theirs[0].splits["train"][:7]]
    assert words == ["the", "cat", "sat", "on", "the", "mat", "<eos>"]


def test_users_mistakes_are_said_in_one_sentence(tmp_path: Path) -> None:
    source = GOLDEN / "torch_type_1"
    with pytest.raises(FileNotFoundError, match="give a folder, a file or the prefix"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ValueError, match=", ".join(KINDS)):
        convert(source, tmp_path / "out", kind="pytorch")
    with pytest.raises(FileExistsError, match="give the name of a new one"):
        convert(source, source)
    with pytest.raises(ValueError, match="'memory' is no field of the configuration"):
        convert(source, tmp_path / "out", changes={"memory": 3})
    with pytest.raises(ValueError, match="of no known kind"):
        convert(GOLDEN, tmp_path / "out")
    with pytest.raises(ValueError, match=r"vocab\.pkl' holds no whole MemTransformerLM"):
        convert(GOLDEN / "hf_zip" / "vocab.pkl", tmp_path / "out")
    shutil.copytree(GOLDEN / "hf_zip", tmp_path / "source")
    (tmp_path / "source" / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        convert(tmp_path / "source", tmp_path / "out")
    with pytest.raises(ValueError, match=r"has a weight .* but its configuration says"):
        convert(GOLDEN / "hf_zip", tmp_path / "out", changes={"d_inner": 13})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "missing"),
    [
        ({"model_config": {}, "model_state": {}}, "tie_projs"),
        ({"model_config": 3, "model_state": {}}, "lacks"),
        ({"model_config": {"tie_projs": [False]}, "model_state": {}}, "n_layer"),
    ],
)
def test_a_checkpoint_of_nvidias_that_lacks_something_is_refused(content: Any, missing: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoint_best.pt").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=rf"checkpoint_best\.pt' is a checkpoint .*{missing}"):
        convert(tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "expected_sentence"),
    [
        ({"n_layer": 10**9}, "absurd settings"),
        ({"vocab_size": 10**9}, "but its configuration says"),
        ({"vocab_size": 10**12}, "absurd settings"),
        ({"d_model": "8"}, "wrong type"),
        ({"cutoffs": 3}, "wrong type"),
        ({"mem_len": 2.5}, "absurd settings"),
    ],
)
def test_absurd_settings_are_refused_before_anything_is_made(
    changes: dict[str, Any], expected_sentence: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(GOLDEN / "hf_zip", source)
    fields = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (source / "config.json").write_text(json.dumps({**fields, **changes}), encoding="utf-8")
    with pytest.raises(ValueError, match=expected_sentence):
        convert(source, tmp_path / "out")


def test_few_numbers_do_not_become_many_weights(tmp_path: Path) -> None:
    """All weights are views of the same few numbers, in a model that would be a thousand times as large."""
    source = tmp_path / "source"
    shutil.copytree(GOLDEN / "hf_zip", source)
    fields = json.loads((source / "config.json").read_text(encoding="utf-8"))
    fields |= {"n_layer": 300, "cutoffs": [], "tie_projs": [False], "div_val": 1}
    (source / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    numbers = torch.zeros(8 * 64)
    model = TransfoXLLMHeadModel(TransfoXLConfig(**{**fields, "n_layer": 1}))
    state = {name: numbers[: weight.numel()].view(weight.shape) for name, weight in model.state_dict().items()}
    layer = {name: weight for name, weight in state.items() if ".layers.0." in name}
    state |= {name.replace(".0.", f".{i}.", 1): weight for i in range(300) for name, weight in layer.items()}
    torch.save(state, source / "pytorch_model.bin")
    with pytest.raises(ValueError, match="repeats a few numbers"):
        convert(source, tmp_path / "out")


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors", "tf_model.h5", "config.json"])
def test_broken_files_of_transformers_4_are_refused_by_name(file: str, tmp_path: Path) -> None:
    if file == "tf_model.h5":
        pytest.importorskip("h5py")
    name = {"model.safetensors": "hf_safetensors", "tf_model.h5": "keras_no_head"}.get(file, "hf_zip")
    source = tmp_path / "source"
    shutil.copytree(GOLDEN / name, source)
    (source / file).write_bytes((source / file).read_bytes()[:-20])
    with pytest.raises(ValueError, match=rf"{file}' cannot be read: "):
        convert(source, tmp_path / "out")


def test_numbers_of_a_keras_file_must_be_in_it(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    source = tmp_path / "source"
    shutil.copytree(GOLDEN / "keras_no_head", source)
    with h5py.File(source / "tf_model.h5", "a") as file:
        file.create_dataset("transformer/model/absurd", shape=(10**12,), dtype="f4", chunks=(1024,))
    with pytest.raises(ValueError, match="are not in it"):
        convert(source, tmp_path / "out")
    (source / "secret").write_bytes(bytes(16))
    shutil.copy(GOLDEN / "keras_no_head" / "tf_model.h5", source)
    with h5py.File(source / "tf_model.h5", "a") as file:
        file.create_dataset(
            "transformer/model/else", shape=(4,), dtype="f4", external=[(str(source / "secret"), 0, 16)]
        )
    with pytest.raises(ValueError, match="are not in it"):
        convert(source, tmp_path / "out")


def test_a_module_within_itself_ends(tmp_path: Path) -> None:
    from transformer_xl.conversion.legacy_files import read_legacy_file
    from transformer_xl.conversion.original_torch import read_original_torch
    from transformer_xl.conversion.unpickling import attributes

    module = read_legacy_file(GOLDEN / "torch_type_1" / "model.pt")
    modules = attributes(module)["_modules"]
    modules |= {f"again{i}": module for i in range(50)}
    assert read_original_torch(GOLDEN / "torch_type_1" / "model.pt", module).settings["attn_type"] == 1


def test_a_hostile_model_is_refused_and_not_run(tmp_path: Path) -> None:
    for pack in PACKINGS.values():
        (tmp_path / "model.pt").write_bytes(pack(plain(WRAPPINGS["in the state of an object"](CALLS["system"]))))
        with pytest.raises(ValueError, match=r"model\.pt' holds a MemTransformerLM that lacks"):
            convert(tmp_path, tmp_path / "out")
    assert not Path("executed").exists()


MODEL_FILES = ["torch_type_0/model.pt", "torch_type_3/model.pt", "nvidia_adaptive/checkpoint_best.pt"]


def rewritten(file: Path, draw: Any) -> bytes:
    """A file of torch whose pickle is mutated, and whose other records and checksums are sound."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(buffer, "w") as new:
        for record in old.namelist():
            data = old.read(record)
            new.writestr(record, mutated(data, draw) if record.endswith("data.pkl") else data)
    return buffer.getvalue()


@pytest.mark.slow
@settings(max_examples=3000, suppress_health_check=list(HealthCheck))
@given(data=st.data(), file=st.sampled_from(MODEL_FILES))
def test_mutated_models_are_converted_or_refused_but_never_crash(
    data: Any, file: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("mutated")
    source = folder / "model.pt"
    source.write_bytes(rewritten(GOLDEN / file, data.draw))
    with contextlib.suppress(ValueError), one_sentence_about(source):
        convert(source, folder / "out")
    shutil.rmtree(folder)
