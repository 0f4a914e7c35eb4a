"""What is told while notebooks run: which ones, which cell, how long already and about how long still."""

import contextlib
import json
import os
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

TICK = {True: 1.0, False: 30.0}  # seconds between two looks, on a terminal and elsewhere


class Progress:
    """Tells how far a run of notebooks is, from a thread of its own, since a cell may take minutes.

    On a terminal one line is rewritten; elsewhere, in a log, lines are added. Which cell runs is read from
    the notebooks in `folder`, which papermill writes whenever a cell begins. What is left is guessed from
    `usual`, the seconds that notebooks took where they were stored, at the pace of this run so far.
    """

    def __init__(self, names: Sequence[str], folder: Path, usual: dict[str, float]) -> None:
        self.names, self.folder, self.usual = list(names), folder, usual
        self.started = time.monotonic()
        self.took: dict[str, float] = {}  # seconds, of each notebook that has ended
        self.running: dict[str, float] = {}  # since when
        self.terminal = sys.stdout.isatty()
        self.lock = threading.Lock()

    def say(self, text: str) -> None:
        """Print lines that stay."""
        with self.lock:
            self._clear()
            print(text, flush=True)

    def begin(self, names: Sequence[str]) -> None:
        """These notebooks are running now, from now on unless they were already."""
        now = time.monotonic()
        for name in self.running.keys() - set(names):
            self.took[name] = now - self.running[name]
        self.running = {name: self.running.get(name, now) for name in names}

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Tell of what is running until the block ends."""
        over = threading.Event()
        thread = threading.Thread(target=self._look, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def line(self) -> str:
        """Where the run is now."""
        now, left = time.monotonic(), self.left()
        head = f"{len(self.took)} of {len(self.names)} done"
        head += "" if left is None else f", about {spoken(left)} left"
        parts = [f"{n} for {spoken(now - since)}, {self.cell(n)}" for n, since in self.running.items()]
        return " | ".join([head, *parts])

    def cell(self, name: str) -> str:
        """The cell of a notebook that runs now."""
        try:
            cells = json.loads((self.folder / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        except (OSError, ValueError):  # not begun, or being written
            return "starting"
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        for number, cell in enumerate(code, 1):
            if cell["metadata"].get("papermill", {}).get("status") == "running":
                lines = (line.strip() for line in "".join(cell["source"]).splitlines())
                return f"cell {number} of {len(code)}: {next(filter(None, lines), '')[:40]}"
        return "between cells"

    def left(self) -> float | None:
        """Seconds until all notebooks are done; None without a clue.

        A notebook that runs beside another is supposed to get its share of what it gets alone.
        """
        known = self.usual | self.took
        if not known:
            return None
        usual = {name: self.usual.get(name, statistics.fmean(known.values())) for name in self.names}
        now = time.monotonic()
        done = sum(usual[name] for name in self.took)
        for name, since in self.running.items():
            done += min(usual[name], (now - since) / len(self.running))
        elapsed = now - self.started
        return (sum(usual.values()) - done) * (elapsed / done if done and elapsed else 1.0)

    def _look(self, over: threading.Event) -> None:
        while not over.wait(TICK[self.terminal]):
            with self.lock:
                self._clear()
                if self.terminal:
                    print(self.line()[: shutil.get_terminal_size().columns - 1], end="", flush=True)
                else:
                    print(self.line(), flush=True)
        with self.lock:
            self._clear()

    def _clear(self) -> None:
        if self.terminal:
            print("\r" + " " * (shutil.get_terminal_size().columns - 1), end="\r", flush=True)


def spoken(seconds: float) -> str:
    """`42 s`, or from two minutes on `5 min`."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def machine_load(seconds: float = 1.0) -> str:
    """The load average, and the busiest processes besides this one and its children during some seconds."""
    own = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    list(psutil.process_iter(["cpu_percent"]))  # the next call tells the time since this one
    time.sleep(seconds)
    processes = psutil.process_iter(["name", "cpu_percent"])
    busy = [(p.info["cpu_percent"] or 0.0, p.info["name"]) for p in processes if p.pid not in own]
    busiest = [f"{name} {percent:.0f} %" for percent, name in sorted(busy, reverse=True)[:3] if percent >= 5]
    load = ", ".join(f"{value:.1f}" for value in psutil.getloadavg())
    return (
        f"load average {load} on {os.cpu_count()} cores (1, 5, 15 minutes); "
        f"busiest other processes: {', '.join(busiest) or 'none above 5 %'}"
    )
