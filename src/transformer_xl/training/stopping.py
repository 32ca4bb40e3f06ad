"""Ctrl-C and SIGTERM during a run: a request to save and stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType


def is_first_process() -> bool:
    """Whether this process speaks for all those that a launcher such as torchrun has started."""
    return os.environ.get("RANK", "0") == "0"


class Stopped(KeyboardInterrupt):
    """A run was asked to stop by a signal and has saved where it is, so that it can be gone on with."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number

    @property
    def exit_code(self) -> int:
        """What a shell expects of a program that a signal ended: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.signal_number


class Interrupted(KeyboardInterrupt):
    """A signal came while something went on that can be given up."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"signal {signal_number}")
        self.signal_number = signal_number


class Signals:
    """Notes Ctrl-C and SIGTERM while it is entered, so that a step is finished before the run stops.

    A second Ctrl-C does what it always did, unless `patient`: several processes get each signal from the terminal and
    from their launcher, and have to stop together. Threads other than the main one get no signals.
    """

    def __init__(self, patient: bool) -> None:
        self.received = 0
        self._patient = patient
        self._at_once = False
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if handler is not signal.SIG_IGN:
                    self._before[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While this is entered a signal raises `Interrupted`, unless there are several processes."""
        self._at_once = not self._patient
        try:
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if not self._patient:
            signal.signal(number, self._before[number])
        if self._at_once:
            raise Interrupted(number)
