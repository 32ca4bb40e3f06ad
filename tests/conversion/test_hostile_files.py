"""Nothing in a file is executed, looked up or imported, whatever the file says."""

from __future__ import annotations

import contextlib
import copyreg
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from transformer_xl.conversion.legacy_files import read_legacy_file
from transformer_xl.conversion.legacy_vocabulary import read_corpus, read_vocabulary

from .hostile_files import (
    CALLS,
    CANARY,
    EXTENSIONS,
    REFERENCES,
    archive,
    hostile_files,
    old_torch,
    one_sentence_about,
    plain,
    write_canary,
)

FILES = {name: dict(hostile_files(instructions)) for name, instructions in {**CALLS, **REFERENCES}.items()}
# What reading a file may do: open that file, and nothing else that Python reports.
WATCHED = (
    "import",
    "exec",
    "compile",
    "pickle.",
    "os.",
    "subprocess.",
    "socket.",
    "ctypes.",
    "code.",
    "shutil.",
    "open",
)
HARMLESS = ("os.listdir", "os.scandir")

_events: list[tuple[str, Any]] | None = None


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    if _events is not None and event.startswith(WATCHED) and not event.startswith(HARMLESS):
        _events.append((event, arguments[0] if arguments else None))


sys.addaudithook(_record)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on the path with the canary in it, extension codes that name the canary, and every reader warmed up."""
    folder = tmp_path_factory.mktemp("hostile")
    write_canary(folder)
    for code, attribute in EXTENSIONS.items():
        copyreg.add_extension(CANARY, attribute, code)
    for zipped in (True, False):
        torch.save(
            {"train": torch.zeros(2, dtype=torch.long)}, folder / "harmless", _use_new_zipfile_serialization=zipped
        )
        read_corpus(folder / "harmless")
    (folder / "harmless").write_bytes(archive(plain(b"N")))
    read_legacy_file(folder / "harmless")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setenv("TRUST_REMOTE_CODE", "True")
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
        yield folder
    for code, attribute in EXTENSIONS.items():
        copyreg.remove_extension(CANARY, attribute, code)


def assert_nothing_happens(path: Path, case: str) -> None:
    """Reads a file by every reader; each returns, or raises one sentence that names the file."""
    global _events
    modules, environment = set(sys.modules), dict(os.environ)
    for read in (read_legacy_file, read_vocabulary, read_corpus):
        _events = events = []
        try:
            with contextlib.suppress(ValueError), one_sentence_about(path):
                read(path)
        finally:
            _events = None
        assert [event for event in events if event != ("open", str(path))] == [], case
    assert set(sys.modules) == modules, case
    assert dict(os.environ) == environment, case
    assert not (path.parent / "executed").exists(), case


@pytest.mark.parametrize("instructions", FILES)
def test_nothing_is_executed(instructions: str, folder: Path) -> None:
    path = folder / "case.pkl"
    for case, content in FILES[instructions].items():
        path.write_bytes(content)
        assert_nothing_happens(path, case)


def test_the_family_has_at_least_two_hundred_files() -> None:
    assert sum(map(len, FILES.values())) >= 200


def test_the_family_is_hostile(tmp_path: Path) -> None:
    """Python's own unpickler executes each of the calls: otherwise the cases above would prove nothing."""
    write_canary(tmp_path)
    (tmp_path / "cases.json").write_text(json.dumps({name: plain(call).hex() for name, call in CALLS.items()}))
    program = f"""
import copyreg, json, os, pickle, sys
for code, name in {EXTENSIONS!r}.items():
    copyreg.add_extension({CANARY!r}, name, code)
silent = []
for name, case in json.load(open("cases.json")).items():
    sys.modules.pop({CANARY!r}, None)
    if os.path.exists("executed"):
        os.remove("executed")
    try:
        pickle.loads(bytes.fromhex(case))
    except Exception:
        pass
    if not os.path.exists("executed"):
        silent.append(name)
print(json.dumps(silent))
"""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(result.stdout.splitlines()[-1]) == []


def test_a_hostile_vocabulary_is_read_for_its_symbols(folder: Path) -> None:
    """A file with both a vocabulary and something hostile gives the vocabulary, and nothing is executed."""
    for pack in (bytes, archive, old_torch):
        symbols = b"}X\x07\x00\x00\x00idx2sym]X\x03\x00\x00\x00cataX\x00\x00\x00\x00as"
        path = folder / "vocab.pkl"
        path.write_bytes(pack(plain(symbols + b"X\x01\x00\x00\x00a" + CALLS["system"] + b"s")))
        assert read_vocabulary(path).symbols == ["cat", ""]
        assert not (folder / "executed").exists()
