"""What is shown while notebooks run: which ones, which cell, how long already and about how long still."""

import contextlib
import json
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

LOG_SECONDS = 30.0  # between two lines in a log


class Progress:
    """Shows how far a run of notebooks is, from a thread of its own, since a cell may take minutes.

    On a terminal one line is rewritten; elsewhere, in a log, lines are added. Which cell runs is read from
    the notebooks in `folder`, which papermill writes whenever a cell begins. What is left is guessed from
    `usual`, the seconds that notebooks took where they were stored, at the pace of this run so far.
    """

    def __init__(self, names: Sequence[str], folder: Path, usual: dict[str, float]) -> None:
        self.names, self.folder, self.usual = list(names), folder, usual
        self.started = time.monotonic()
        self.took: dict[str, float] = {}  # seconds, of each notebook that has ended
        self.running: dict[str, float] = {}  # since when
        self.console = Console(highlight=False, markup=False)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text, soft_wrap=True)

    def begin(self, names: Sequence[str]) -> None:
        """These notebooks are running now, from now on unless they were already."""
        now = time.monotonic()
        for name in self.running.keys() - set(names):
            self.took[name] = now - self.running[name]
        self.running = {name: self.running.get(name, now) for name in names}

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show what is running until the block ends."""
        if self.console.is_terminal:
            with Live(get_renderable=self.text, console=self.console, refresh_per_second=1, transient=True):
                yield
            return
        over = threading.Event()

        def log() -> None:
            while not over.wait(LOG_SECONDS):
                self.say(self.line())

        thread = threading.Thread(target=log, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def text(self) -> Text:
        """`line`, cut where the terminal ends."""
        return Text(self.line(), no_wrap=True, overflow="ellipsis")

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
        done = sum(usual[name] for name in list(self.took))
        for name, since in self.running.items():
            done += min(usual[name], (now - since) / len(self.running))
        elapsed = now - self.started
        return (sum(usual.values()) - done) * (elapsed / done if done and elapsed else 1.0)


def spoken(seconds: float) -> str:
    """`42 s`, or from two minutes on `5 min`."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
