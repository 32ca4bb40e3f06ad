from __future__ import annotations

import dataclasses

import pytest

from transformer_xl.evaluation import PAPER_PROTOCOLS, DynamicEvaluation, Protocol, paper_protocol, sweep


def test_a_protocol_tells_everything():
    assert str(Protocol(8, 64)) == "target 8, memory 64, no clamp, batch 1, first token of the text not scored"
    assert str(Protocol(8, 64, 40, same_length=True, batch_size=3, begin=7)) == (
        "target 8, memory 64, clamp 40, same length, batch 3, token 7 before the text"
    )
    assert str(Protocol(10, 0, extended_length=130, temperature=1.08, begin=0)) == (
        "target 10, memory 0, no clamp, 130 read again, batch 1, token 0 before the text, temperature 1.08"
    )
    assert Protocol(pieces="alone").conditions == (
        "batch 1, memory reset before each piece, first token of each piece not scored"
    )


def test_adapting_on_the_test_text_is_told_loudly():
    protocol = Protocol(8, 64, dynamic=DynamicEvaluation(0.01, 0.02, "rms"))
    assert str(protocol).endswith("ADAPTING ON THE TEST TEXT (rms, learning rate 0.01, decay 0.02, epsilon 0.001)")
    assert "ADAPTING" not in str(Protocol(8, 64))


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("wt103-base", (64, 640, 400)),
        ("wt103-large", (128, 1600, 1000)),
        ("enwik8-base", (80, 2100, 820)),
        ("enwik8-large", (128, 3800, 1000)),
        ("text8-large", (128, 3800, 1000)),
        ("lm1b", (32, 128, -1)),
    ],
)
def test_the_protocols_of_the_paper_are_those_of_its_scripts(name, lengths):
    protocol = paper_protocol(name)
    assert (protocol.target_length, protocol.memory_length, protocol.clamp_length) == lengths
    assert protocol.same_length
    assert protocol.batch_size == 1


def test_a_protocol_that_the_paper_does_not_have_is_named_beside_those_it_has():
    with pytest.raises(ValueError, match="there is no protocol 'wt2': the paper's are wt103-base, ") as error:
        paper_protocol("wt2")
    assert all(name in str(error.value) for name in PAPER_PROTOCOLS)


def test_a_sweep_is_every_combination_and_leaves_the_rest():
    protocol = Protocol(8, 64, 40, same_length=True, begin=7)
    variants = sweep(protocol, [4, 8], [0, 32, 64], [-1])
    assert [(each.target_length, each.memory_length, each.clamp_length) for each in variants] == [
        (target, memory, -1) for target in (4, 8) for memory in (0, 32, 64)
    ]
    assert {dataclasses.replace(each, target_length=8, memory_length=64, clamp_length=40) for each in variants} == {
        protocol
    }
    assert sweep(protocol) == [protocol]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target_length", 0),
        ("memory_length", -1),
        ("clamp_length", -2),
        ("batch_size", 0),
        ("begin", -1),
        ("extended_length", -1),
    ],
)
def test_a_length_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}, but must be at least"):
        dataclasses.replace(Protocol(), **{name: value})


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_out_of_range_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature is "):
        Protocol(temperature=temperature)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.0), ("learning_rate", float("nan")), ("learning_rate", float("inf")), ("decay", 1.5),
        ("decay", float("nan")), ("epsilon", 0.0), ("rule", "adam"),
    ],
)  # fmt: skip
def test_a_number_of_dynamic_evaluation_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} is "):
        DynamicEvaluation(**{"learning_rate": 0.1, name: value})
