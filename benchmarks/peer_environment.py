"""The peer, transformers 4.37.2, in a virtual environment of its own."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import torch

FOLDER = Path(__file__).parent / ".peer"
NEEDED = ["transformers==4.37.2", "sacremoses", "safetensors", "numpy<2"]


def peer_python(folder: Path = FOLDER) -> Path:
    """Return the Python of the peer's environment, which is made first if it is not there."""
    python = folder / "bin" / "python"
    if not (folder / ".complete").exists():
        print(f"setting up transformers 4.37.2 in {folder}", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, f"torch=={torch.__version__.split('+')[0]}"], check=True)
        subprocess.run([*install, *NEEDED], check=True)
        (folder / ".complete").touch()
    return python
