"""What comes from outside while a run works: signals, and a terminal that goes away."""

import contextlib
import os
import signal
import sys
import time

import torch
import torch.distributed as dist

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class Interrupt:
    """Ctrl-C, SIGTERM and SIGHUP (a lost ssh, a closed laptop) ask a loop to stop after its step; a
    second one ends it at once."""

    def __enter__(self):
        self.asked, self.before = None, {}  # when it was asked
        for number in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name)):
            if signal.getsignal(number) == signal.SIG_IGN:  # by nohup: then it shall go on
                continue
            with contextlib.suppress(ValueError):  # not in the main thread: leave them alone
                self.before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number, frame):
        if self.asked is None:
            self.asked = time.monotonic()
        elif time.monotonic() - self.asked > 2:  # torchrun and shells send on what came already
            raise KeyboardInterrupt("stopped within a step; what was saved before is whole")

    def seen(self, device, world):
        """Whether any process was asked to stop; all processes get the same answer."""
        if world == 1:
            return self.asked is not None
        flag = torch.tensor(float(self.asked is not None), device=device)
        dist.all_reduce(flag)
        return flag.item() > 0

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)


class Terminal:
    """A text stream, stdout or stderr, whose death ends no run: what follows goes nowhere.

    Ctrl-C on ``train 2>&1 | tee log`` kills tee first: the next character would raise an error in
    place of the last checkpoint.
    """

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        """Write and flush, or find out that nobody reads any more."""
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError, AttributeError):  # a broken pipe; closed; None
            self._leave()
        return len(text)

    def flush(self):
        """Write flushes already."""

    def _leave(self):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # no file behind it
            # What is buffered goes nowhere, at exit too.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        self.stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

    def __getattr__(self, name):  # isatty, encoding, fileno, ...
        return getattr(self.stream, name)


@contextlib.contextmanager
def patient_terminal():
    """While it lasts, print and the log outlive their terminal, and no character is their end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # of a notebook; closed
            stream.reconfigure(errors="backslashreplace")
    out, err = Terminal(sys.stdout), Terminal(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield
