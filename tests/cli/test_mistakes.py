from __future__ import annotations

import pytest

from transformer_xl.cli.main import main

from .conftest import SHORT_RUN, SMALL_MODEL


def refused(arguments, capsys) -> str:
    """The one sentence on stderr with which a command is refused."""
    try:
        code = main([str(each) for each in arguments])
    except SystemExit as end:
        code = end.code
    output = capsys.readouterr()
    assert code == 2
    assert output.err.startswith("transformer-xl: error: ")
    assert output.err.count("\n") == 1
    assert output.out == ""
    return output.err


def training(text, out, *options):
    return ["train", "--train", text, out, *SMALL_MODEL, *SHORT_RUN, *options]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        (b"", "is empty"),
        (b"caf\xe9 " * 100, "is not UTF-8: the byte 0xe9 at offset 3"),
        (b"too short", "the training text has 9 symbols, but 4 streams of at least one segment of 16 need 65"),
    ],
    ids=["missing", "empty", "not UTF-8", "short"],
)
def test_a_text_that_cannot_be_learned_is_refused_and_nothing_is_written(content, message, tmp_path, capsys):
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_bytes(content)
    before = set(tmp_path.iterdir())
    assert message in refused(training(text, tmp_path / "out"), capsys)
    assert set(tmp_path.iterdir()) == before


def test_a_folder_with_content_is_refused_and_left_alone(toy_text, tmp_path, capsys):
    (tmp_path / "note.txt").write_text("mine")
    assert "is not empty" in refused(training(toy_text, tmp_path), capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


@pytest.mark.parametrize("verb", ["evaluate", "generate"])
def test_a_folder_without_a_model_is_refused(verb, toy_text, tmp_path, capsys):
    text = [toy_text] if verb == "evaluate" else []
    assert "holds no model" in refused([verb, tmp_path, *text], capsys)
    assert "there is no folder" in refused([verb, tmp_path / "none", *text], capsys)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "there is no file"), (b"", "is empty"), (b"\xff", "not UTF-8")]
)
def test_a_text_that_cannot_be_scored_is_refused(content, message, trained, tmp_path, capsys):
    if content is not None:
        (tmp_path / "text.txt").write_bytes(content)
    assert message in refused(["evaluate", trained, tmp_path / "text.txt"], capsys)


def test_a_text_of_one_symbol_that_nothing_stands_before_cannot_be_scored(trained, tmp_path, capsys):
    (tmp_path / "text.txt").write_text("t", encoding="utf-8")
    assert "too few" in refused(["evaluate", trained, tmp_path / "text.txt", "--plain"], capsys)


def test_a_corpus_of_another_vocabulary_cannot_be_scored(trained, trained_on_words, capsys):
    message = refused(["evaluate", trained, trained_on_words / "corpus"], capsys)
    assert "give a corpus that was encoded with the model's vocabulary" in message
    assert "the corpus has no test text" in refused(["evaluate", trained, trained / "corpus"], capsys)


def test_an_unknown_symbol_in_a_prompt_is_named_with_its_place(trained, trained_on_words, capsys):
    message = refused(["generate", trained, "--prompt", "the Ω"], capsys)
    assert "the character 'Ω' at position 4" in message
    message = refused(["generate", trained_on_words, "--prompt", "the unicorn"], capsys)
    assert "the word 'unicorn' at position 1" in message


def test_an_empty_prompt_is_refused(trained, capsys):
    assert "the prompt holds no symbol" in refused(["generate", trained, "--prompt", ""], capsys)


@pytest.mark.parametrize(
    "option",
    [
        ["--batch-size", "0"], ["--batch-size", "-4"], ["--batch-size", "many"], ["--batch-size", "1.5"],
        ["--learning-rate", "nan"], ["--learning-rate", "-1"], ["--minutes", "0"], ["--minutes", "nan"],
        ["--dropout", "1"], ["--num-heads", "3"], ["--unit", "line"], ["--seed", "-1"], ["--segment-length", "0"],
        ["--speed", "9"], ["--memory-length", "-1"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_training_option_out_of_range_is_refused(option, toy_text, tmp_path, capsys):
    arguments = ["train", "--train", toy_text, tmp_path / "out", *option]
    message = refused(arguments, capsys)
    assert option[0].removeprefix("--").replace("-", "_") in message.replace("-", "_")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "option",
    [
        ["--target-length", "0"], ["--memory-length", "-1"], ["--memory-length", "0", "x"], ["--clamp-length", "-2"],
        ["--batch-size", "0"], ["--side-by-side", "0"], ["--temperature", "0"], ["--extended-length", "-1"],
        ["--side-by-side", "2", "--batch-size", "2"],
        ["--protocol", "wt2"], ["--picture", "sweep.xyz"], ["--dynamic", "adam"], ["--dynamic", "sgd"],
        ["--dynamic", "sgd", "--learning-rate", "0"], ["--dynamic", "sgd", "--learning-rate", "1e30"],
        ["--dynamic", "rms", "--learning-rate", "1"], ["--learning-rate", "1"], ["--training-text", "a.txt"],
        ["--dynamic", "rms", "--learning-rate", "1", "--training-text", "none.txt"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_an_evaluation_option_out_of_range_is_refused(option, trained, toy_text, capsys):
    refused(["evaluate", trained, toy_text, *option], capsys)


@pytest.mark.parametrize(
    "option",
    [
        ["--length", "0"], ["--length", "-5"], ["--temperature", "-1"], ["--temperature", "nan"],
        ["--temperature", "inf"], ["--top-k", "-1"], ["--top-p", "0"], ["--top-p", "1.1"], ["--top-p", "nan"],
        ["--seed", "-1"], ["--seed", "x"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_writing_option_out_of_range_is_refused(option, trained, capsys):
    refused(["generate", trained, "--prompt", "the", *option], capsys)


def test_a_file_that_is_no_session_is_refused_and_left_alone(trained, tmp_path, capsys):
    (tmp_path / "story").write_text("mine")
    message = refused(["generate", trained, "--prompt", "the", "--session", tmp_path / "story"], capsys)
    assert "not a whole safetensors file" in message
    assert (tmp_path / "story").read_text() == "mine"


def test_steps_and_minutes_exclude_each_other(toy_text, tmp_path, capsys):
    assert "not allowed with" in refused(["train", "--train", toy_text, tmp_path, "--steps", 1, "--minutes", 1], capsys)
