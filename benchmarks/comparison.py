"""Rows of the table, and pairs of processes that hold the same model."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sizes import Size
from timing import Spread
from worker import Side


class Comparison:
    """Where figures are printed and kept, and sides are begun."""

    def __init__(self, peer: Path, threads: int, runs: int) -> None:
        self.peer, self.threads, self.runs = peer, threads, runs
        self.rows: list[dict[str, Any]] = []
        self.title = ""

    @contextmanager
    def sides(self, size: Size) -> Iterator[tuple[Side, Side]]:
        """Begin our side and the peer's, with the same random weights."""
        with tempfile.TemporaryDirectory() as folder:
            # The peer writes the file, since it is the peer's format that both read, and in a process of its own, which
            # leaves no trace in what the sides' memory is measured to be.
            maker = Side("peer", self.peer, self.threads)
            maker.ask("create", size=size, folder=folder)
            maker.close()
            ours, peer = Side("ours", sys.executable, self.threads), Side("peer", self.peer, self.threads)
            try:
                ours.ask("load", folder=folder)
                peer.ask("load", folder=folder)
                yield ours, peer
            finally:
                ours.close()
                peer.close()

    def section(self, title: str) -> None:
        self.title = title
        print(f"\n{title}", flush=True)

    def row(self, what: str, spread: Spread | None = None, bar: str = "", **figures: float) -> None:
        """Print and keep one figure, with the bar that it is held to."""
        words = [f"{name.replace('_', ' ')} {figure:,.4g}" for name, figure in figures.items()]
        line = "  ".join([f"  {what:44}", *([str(spread)] if spread else []), *words, *([f"[{bar}]"] if bar else [])])
        print(line, flush=True)
        self.rows.append(
            {
                "section": self.title,
                "what": what,
                "bar": bar,
                **figures,
                **({"seconds": spread.to_json()} if spread else {}),
            }
        )

    def require_equal(self, what: str, ours: Any, theirs: Any) -> None:
        """Refuse to measure two things that do not do the same."""
        if ours != theirs:
            raise SystemExit(f"{what}: ours gives {ours}, the other side {theirs}; nothing was measured")

    def require_close(self, what: str, ours: float, theirs: float, tolerance: float = 1e-4) -> None:
        if not abs(ours - theirs) <= tolerance * max(abs(ours), abs(theirs), 1e-12):
            raise SystemExit(f"{what}: ours gives {ours}, the other side {theirs}; nothing was measured")
