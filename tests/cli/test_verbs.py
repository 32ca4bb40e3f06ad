from __future__ import annotations

import sys

import pytest

from transformer_xl.cli.main import main

from .conftest import SHORT_RUN, SMALL_MODEL


@pytest.mark.parametrize("unit", ["char", "byte", "word"])
def test_each_unit_goes_all_the_way(unit, toy_text, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["train", "--train", str(toy_text), out, "--unit", unit, *SMALL_MODEL, *SHORT_RUN]) == 0
    assert main(["evaluate", out, str(toy_text)]) == 0
    assert main(["generate", out, "--prompt", "the", "--length", "10", "--seed", "1"]) == 0
    name = {"char": "bits per character", "byte": "bits per byte", "word": "perplexity"}[unit]
    assert name in capsys.readouterr().out


def test_training_shows_a_bar_and_every_evaluation(toy_text, tmp_path, capsys):
    assert main(["train", "--train", str(toy_text), str(tmp_path / "out"), *SMALL_MODEL, *SHORT_RUN]) == 0
    output = capsys.readouterr()
    assert "tokens/s" in output.err
    assert "bits per character" in output.err
    assert [line.split(":")[0] for line in output.out.splitlines() if line.startswith("step")] == [
        "step     10",
        "step     20",
    ]
    assert "target 16, memory 16, no clamp, batch 4" in output.out


def test_a_validation_text_of_ones_own_is_used(toy_text, tmp_path, capsys):
    (tmp_path / "valid.txt").write_text("the dog sat on the cat.\n" * 10, encoding="utf-8")
    options = ["--valid", str(tmp_path / "valid.txt"), *SMALL_MODEL, *SHORT_RUN]
    assert main(["train", "--train", str(toy_text), str(tmp_path / "out"), *options]) == 0
    assert " 240 tokens" in capsys.readouterr().out


def test_several_memory_lengths_make_a_table(trained, toy_text, capsys):
    assert main(["evaluate", str(trained), str(toy_text), "--memory-length", "0", "4", "16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("toy.txt: 3,060 symbols, 0 of them unknown")
    assert [line.split()[:3] for line in lines[2:]] == [["16", memory, "none"] for memory in ("0", "4", "16")]


def test_unknown_symbols_of_a_text_are_counted(trained, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("the œuvre œ", encoding="utf-8")
    assert main(["evaluate", str(trained), str(tmp_path / "text.txt")]) == 0
    assert "11 symbols, 3 of them unknown" in capsys.readouterr().out


@pytest.fixture
def few_words(tmp_path):
    (tmp_path / "few.txt").write_text("the cat lay on the dog.\n" * 12, encoding="utf-8")
    return tmp_path / "few.txt"


def table(arguments, capsys) -> list[list[str]]:
    """The words of each line of the table that an evaluation prints."""
    assert main(["evaluate", *map(str, arguments)]) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines()[2:]]


def test_the_protocol_of_an_evaluation_is_printed(trained, few_words, capsys):
    options = ["--target-length", "8", "--memory-length", "12", "--clamp-length", "5", "--batch-size", "2"]
    (line,) = table([trained, few_words, *options, "--same-length"], capsys)
    assert line[:3] == ["8", "12", "5"]
    assert " ".join(line).endswith("same length, batch 2, token 9 before the text")


def test_every_symbol_is_scored_unless_the_text_is_to_stand_alone(trained, few_words, capsys):
    assert table([trained, few_words], capsys)[0][8] == "288"
    (plain,) = table([trained, few_words, "--plain"], capsys)
    assert plain[8] == "287"
    assert " ".join(plain).endswith("first token of the text not scored")


def test_a_protocol_of_the_paper_is_taken_by_its_name(trained, few_words, capsys):
    (line,) = table([trained, few_words, "--protocol", "lm1b"], capsys)
    assert line[:3] == ["32", "128", "none"]
    assert "same length" in " ".join(line)
    (line,) = table([trained, few_words, "--protocol", "wt103-base", "--memory-length", "20"], capsys)
    assert line[:3] == ["64", "20", "400"]


def test_several_lengths_of_each_kind_make_one_table_and_one_picture(trained, few_words, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    lengths = ["--target-length", "8", "16", "--memory-length", "0", "8", "--clamp-length", "4", "-1"]
    lines = table([trained, few_words, *lengths, "--picture", tmp_path / "sweep.png"], capsys)
    assert {tuple(line[:3]) for line in lines} == {
        (target, memory, clamp) for target in ("8", "16") for memory in ("0", "8") for clamp in ("4", "none")
    }
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_stretches_side_by_side_give_the_score_of_one_stream(trained, few_words, capsys):
    (alone,) = table([trained, few_words], capsys)
    (together,) = table([trained, few_words, "--side-by-side", "4"], capsys)
    assert together[:9] == alone[:9]
    assert together[10:] == alone[10:]


@pytest.mark.parametrize("rule", [["sgd"], ["rms", "--training-text"]])
def test_dynamic_evaluation_says_that_it_adapts_on_the_test_text(rule, trained, few_words, capsys):
    if rule[-1] == "--training-text":
        rule = [*rule, few_words]
    (line,) = table([trained, few_words, "--dynamic", *rule, "--learning-rate", "0.001", "--decay", "0.01"], capsys)
    assert "ADAPTING ON THE TEST TEXT" in " ".join(line)
    (static,) = table([trained, few_words], capsys)
    assert float(line[3]) < float(static[3])


def test_an_encoded_corpus_is_scored_where_it_lies(trained, few_words, capsys):
    (line,) = table([trained, trained / "corpus", "--split", "valid", "--batch-size", "1"], capsys)
    assert line[8] == "153"
    assert len(line[:9]) == 9
    options = ["--split", "valid", "--dynamic", "rms", "--learning-rate", "1e-4", "--training-text"]
    (line,) = table([trained, trained / "corpus", *options, trained / "corpus"], capsys)
    assert "ADAPTING" in " ".join(line)


def test_tokens_read_again_and_a_temperature_are_part_of_the_protocol(trained, few_words, capsys):
    (line,) = table([trained, few_words, "--extended-length", "5", "--temperature", "1.5"], capsys)
    assert " ".join(line).endswith("5 read again, batch 1, token 9 before the text, temperature 1.5")


def test_a_seed_repeats_the_text(trained, capsys):
    texts = []
    for seed in ("1", "1", "2"):
        assert main(["generate", str(trained), "--prompt", "the ", "--length", "40", "--seed", seed]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]
    assert texts[0].startswith("the ")
    assert len(texts[0]) == len("the ") + 40 + 1


def test_the_text_appears_while_it_is_written(trained, monkeypatch):
    pieces = []
    monkeypatch.setattr(sys.stdout, "write", pieces.append)
    assert main(["generate", str(trained), "--prompt", "the ", "--length", "5"]) == 0
    assert [len(piece) for piece in pieces if piece] == [4, 1, 1, 1, 1, 1, 1]


def test_a_session_goes_on_where_it_stopped(trained, tmp_path, capsys):
    common = ["generate", str(trained), "--seed", "1"]
    assert main([*common, "--prompt", "the ", "--length", "20", "--temperature", "0"]) == 0
    at_once = capsys.readouterr().out
    pieces = ""
    for options in (["--prompt", "the "], [], []):
        session = ["--session", str(tmp_path / "story"), "--length", "5", "--temperature", "0"]
        assert main([*common, *session, *options]) == 0
        pieces += capsys.readouterr().out.removesuffix("\n")
    assert at_once.startswith(pieces)
    assert len(pieces) == len("the ") + 15
