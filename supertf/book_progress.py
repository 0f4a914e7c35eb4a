"""What is told while notebooks run: which one, which cell, how long already and about how long still."""

import contextlib
import os
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import psutil

TICK = {True: 1.0, False: 30.0}  # seconds between two looks, on a terminal and elsewhere


class Progress:
    """Tells how far a run of notebooks is, from a thread of its own, since a cell may take minutes.

    On a terminal one line is rewritten; elsewhere, in a log, lines are added. What is left is guessed from
    `usual`, the seconds that notebooks took where they were stored, at the pace of the notebooks before.
    """

    def __init__(self, names: Sequence[str], usual: dict[str, float]) -> None:
        self.names, self.usual = list(names), usual
        self.took: dict[str, float] = {}  # seconds, of each notebook that has ended
        self.name, self.since = "", 0.0
        self.cell, self.cells, self.source, self.cell_since = 0, 0, "", 0.0
        self.terminal = sys.stdout.isatty()
        self.lock = threading.Lock()

    def say(self, text: str) -> None:
        """Print lines that stay."""
        with self.lock:
            self._clear()
            print(text, flush=True)

    @contextlib.contextmanager
    def notebook(self, name: str, cells: int) -> Iterator[None]:
        """Tell of this notebook until the block ends."""
        self.name, self.since = name, time.monotonic()
        self.cell, self.cells, self.source, self.cell_since = 0, cells, "the kernel starts", self.since
        over = threading.Event()
        thread = threading.Thread(target=self._look, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.took[name] = time.monotonic() - self.since

    def begin_cell(self, source: str) -> None:
        """The next code cell begins."""
        self.cell, self.cell_since = self.cell + 1, time.monotonic()
        self.source = next((line.strip() for line in source.splitlines() if line.strip()), "")

    def line(self) -> str:
        """Where the run is now."""
        now = time.monotonic()
        at = f"[{self.names.index(self.name) + 1} of {len(self.names)}] {self.name}: cell {self.cell} of "
        at += f"{self.cells} for {spoken(now - self.cell_since)}, notebook for {spoken(now - self.since)}"
        left = self.left(now - self.since)
        at += f", about {spoken(left)} left" if left else ""  # nothing, when it takes longer than thought
        return f"{at} | {self.source[:60]}"

    def left(self, elapsed: float) -> float | None:
        """Seconds until all notebooks are done, when this one has run for `elapsed`; None without a clue."""
        known = self.usual | self.took
        if not known:
            return None
        usual = {name: self.usual.get(name, statistics.fmean(known.values())) for name in self.names}
        done, own = sum(usual[name] for name in self.took), usual[self.name]
        pace = sum(self.took.values()) / done if done else 1.0
        if elapsed > pace * own:  # slower than those before
            pace = (sum(self.took.values()) + elapsed) / (done + own)
        to_come = sum(usual[name] for name in self.names if name not in self.took and name != self.name)
        return max(0.0, pace * own - elapsed) + pace * to_come

    def _look(self, over: threading.Event) -> None:
        while True:
            with self.lock:
                self._clear()
                if self.terminal:
                    print(self.line()[: shutil.get_terminal_size().columns - 1], end="", flush=True)
                else:
                    print(self.line(), flush=True)
            if over.wait(TICK[self.terminal]):
                break
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
