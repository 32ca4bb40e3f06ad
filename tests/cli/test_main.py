from __future__ import annotations

import functools
import signal
import subprocess
import sys
import time

import pytest

from transformer_xl.cli.main import main
from transformer_xl.evaluation import PAPER_PROTOCOLS

COMMAND = [sys.executable, "-m", "transformer_xl"]
VERBS = ["encode", "train", "evaluate", "generate"]


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_needs_neither_torch_nor_transformers(arguments):
    program = (
        "import sys\n"
        f"sys.argv = ['transformer-xl', *{arguments!r}]\n"
        "from transformer_xl.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'transformers', 'accelerate'} & set(sys.modules), 'too much was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "usage: transformer-xl" in done.stdout


def test_help_names_every_verb():
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
    assert all(verb in done.stdout for verb in VERBS)


def test_without_a_verb_one_is_asked_for():
    done = subprocess.run(COMMAND, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("transformer-xl: error: ")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_saves_the_run_and_says_how_to_go_on(number, code, tmp_path):
    out = tmp_path / "out"
    arguments = ["train", "--train", "builtin:shakespeare", str(out), "--steps", "1000000"]
    # A shell that runs the tests in the background has them ignore the signal, and their children with them.
    listen = functools.partial(signal.signal, number, signal.SIG_DFL)
    process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True, preexec_fn=listen)
    deadline = time.monotonic() + 300
    while not (out / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    sentence = errors.rstrip().splitlines()[-1]
    (checkpoint,) = (out / "checkpoints").iterdir()
    step = int(checkpoint.name.removeprefix("step-"))
    assert sentence == f"transformer-xl: stopped at step {step:,}; go on with: transformer-xl train {out} --resume"
    assert "Traceback" not in errors


def test_a_reader_that_leaves_early_gets_no_traceback(trained):
    arguments = ["generate", str(trained), "--prompt", "the", "--length", "2000"]
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(5)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 1


def test_the_help_of_evaluation_names_all_protocols_of_the_paper(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    described = capsys.readouterr().out
    assert all(name in described for name in PAPER_PROTOCOLS)
