"""A run in the terminal, from its folder alone: what its process wrote last, and its curves over the night so far."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import sleep, time
from typing import Final

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.errors import InputError
from reports.state import LIMIT_S, State, Tally, VisitState, look, percentile_s
from reports.store import Store, StoreError
from schemas.measures import PULSE

TAI_UTC_S: Final = 37.0        # since 2017; no leap second is announced
MJD_EPOCH: Final = datetime(1858, 11, 17, tzinfo=UTC)
SPARK: Final = " ▁▂▃▄▅▆▇█"
CURVE: Final = 28              # columns of a curve
NARROW: Final = (96, 15)       # on a terminal of fewer columns, with those of a curve there
SPEED_S: Final = 10.0          # of the wall clock, over which the speed is taken
WIDTH: Final = 100             # where there is no terminal
QUIET_S: Final = 5.0           # a state older than that is worth a word
CELLS: Final = {"of": "dim", "waiting": "yellow", "at work": "cyan", "saved": "magenta", "sent": "green",
                "failed": "bold red"}   # detectors of a visit
SPARED: Final = ("of", "saved")         # on a narrow terminal


@dataclass(slots=True)
class Frame:
    """What is known of a run at one moment."""

    state: State
    killed: bool
    pulse: np.ndarray          # PULSE
    now: float                 # wall clock

    @property
    def over(self) -> bool:
        return self.killed or self.state.status != "running"


@dataclass(slots=True)
class Watcher:
    """Reads a run folder again and again, of its curves only the parts that are new."""

    folder: Path
    _pulse: np.ndarray = field(default_factory=lambda: np.zeros(0, PULSE))
    _parts: int = 0
    _started: float = 0.0

    def frame(self) -> Frame:
        """The run now; InputError where there is none."""
        try:
            state, killed = look(self.folder)
            if state is None:
                raise InputError(self._none())
            if state.started != self._started:     # done again: its curves begin anew
                self._pulse, self._parts, self._started = self._pulse[:0], 0, state.started
            if (self.folder / "measures").is_dir():
                new, self._parts = Store(self.folder).since("pulse", self._parts)
                self._pulse = np.concatenate([self._pulse, new])
        except StoreError as error:
            raise InputError(str(error)) from None
        return Frame(state, killed, self._pulse, time())

    def _none(self) -> str:
        if self._started:
            return f"{self.folder}: the run ended early, and its folder with it"
        inside = sorted(self.folder.glob("seed_*/state.json"))
        if inside:
            return f"{self.folder}: several runs are in this folder; watch one of them, e.g. {inside[0].parent}"
        return f"{self.folder}: no run to watch, it has no state.json"


def watch(folder: Path, *, once: bool = False, every_s: float = 1.0, console: Console | None = None) -> int:
    """Show a run until it is over; the exit code: 0 it is done, 1 it failed or was killed. `once` shows one frame."""
    console = console or Console(width=None if sys.stdout.isatty() else WIDTH)
    watcher = Watcher(folder)
    frame = watcher.frame()
    if once:
        console.print(drawn(frame, folder, console.width))
    elif console.is_terminal:
        with Live(drawn(frame, folder, console.width), console=console, auto_refresh=False) as live:
            while not frame.over:
                sleep(every_s)
                frame = watcher.frame()
                live.update(drawn(frame, folder, console.width), refresh=True)
    else:
        console.print(line(frame), soft_wrap=True, highlight=False)
        while not frame.over:
            sleep(every_s)
            frame = watcher.frame()
            console.print(line(frame), soft_wrap=True, highlight=False)
    return 1 if frame.killed or frame.state.status == "failed" else 0


# --- words and numbers ------------------------------------------------------------------------------------------------

def clock(mjd_tai: float) -> str:
    """A time as people say it."""
    utc = MJD_EPOCH + timedelta(days=mjd_tai) - timedelta(seconds=TAI_UTC_S)
    return f"{utc:%Y-%m-%d %H:%M:%S} UTC"


def duration(seconds: float) -> str:
    """A span in its two largest units.

    Examples
    --------
    >>> duration(9.4), duration(75), duration(7260)
    ('9 s', '1 min 15 s', '2 h 01 min')
    """
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def speed(frame: Frame) -> float:
    """Simulated seconds per second of the wall clock: of late while it runs, of the whole night afterwards."""
    p = frame.pulse
    if frame.state.night is None or not len(p):
        return float("nan")
    first = 0 if frame.over else int(np.searchsorted(p["wall_s"], frame.now - SPEED_S))
    begin = p[min(first, len(p) - 1)]
    wall = (float(p["wall_s"][-1]) if frame.over else frame.now) - float(begin["wall_s"])
    at = float(p["at_s"][-1]) if frame.over else max(frame.state.night.at_s, float(p["at_s"][-1]))
    return (at - float(begin["at_s"])) / wall if wall > 0 else float("nan")


def curve(at: np.ndarray, values: np.ndarray, columns: int = CURVE) -> str:
    """Values over time as blocks of eight heights, the largest of each column, from 0 to the largest of all."""
    if len(at) < 2 or at[-1] <= at[0]:
        return ""
    column = np.minimum(((at - at[0]) / (at[-1] - at[0]) * columns).astype(int), columns - 1)
    most = np.zeros(columns)
    np.maximum.at(most, column, values)
    filled = np.zeros(columns, bool)
    filled[column] = True
    known = np.maximum.accumulate(np.where(filled, np.arange(columns), 0))     # a column without one: that before it
    heights = most[known]
    top = heights.max()
    steps = np.ceil(heights / top * (len(SPARK) - 1)).astype(int) if top > 0 else np.zeros(columns, int)
    return "".join(SPARK[k] for k in steps.tolist())


def standing(frame: Frame) -> Text:
    """Whether it runs, and since when."""
    state = frame.state
    took = duration((frame.now if not frame.over else state.updated) - state.started)
    if frame.killed:
        return Text(f"killed at {state.place} after {took}; `alert-twin resume` takes it up", style="bold red")
    if state.status == "failed":
        return Text(f"failed at {state.place} after {took}: {state.why}", style="bold red")
    if state.status == "done":
        return Text(f"done in {took}", style="bold green")
    quiet = frame.now - state.updated
    words = f"running for {took}, process {state.process}" + (f", {state.doing}" if state.doing else "")
    return Text(words + (f", last word {duration(quiet)} ago" if quiet > QUIET_S else ""), style="bold cyan")


def line(frame: Frame) -> str:
    """One line, where there is no terminal."""
    state, night = frame.state, frame.state.night
    head = standing(frame).plain
    if night is None:
        return f"{head} | {state.done} of {state.of} {state.unit}s"
    return (f"{head} | {clock(night.origin_mjd_tai + night.at_s / 86400)} | visits {state.done} of {state.of} | "
            f"queue {night.waiting:,} | busy {night.busy:,} of {night.cap:,} | alerts {night.sent:,} sent, "
            f"{night.late:,} late, {sum(night.lost.values()):,} lost | 98 % within {_within(night, 98)}")


def _within(night: Tally, q: float) -> str:
    value = percentile_s(night.delays, q)
    return "-" if value != value else f"{value:.1f} s"


# --- a frame ----------------------------------------------------------------------------------------------------------

def drawn(frame: Frame, folder: Path, width: int = WIDTH) -> RenderableType:
    """The whole frame, for a terminal of so many columns."""
    state = frame.state
    parts: list[RenderableType] = [_progress(frame)]
    if state.night is not None:
        parts += ["", _numbers(frame, state.night, width), "", _visits(state.night, width)]
    title = Text.assemble((state.name or folder.name, "bold"), f" · seed {state.seed} · {state.kind}")
    style = "red" if frame.killed or state.status == "failed" else "green" if state.status == "done" else "cyan"
    return Panel(Group(standing(frame), *parts), title=title, title_align="left", border_style=style)


def _progress(frame: Frame) -> RenderableType:
    state = frame.state
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True)
    share = state.done / state.of if state.of else 0.0
    grid.add_row(f"{state.done:,} of {state.of:,} {state.unit}s done",
                 ProgressBar(total=max(state.of, 1), completed=state.done, complete_style="cyan",
                             finished_style="green"), f"{100 * share:.0f} %" + _left(frame))
    return grid


def _left(frame: Frame) -> str:
    """How long it will take, if it goes on as of late."""
    p, state = frame.pulse, frame.state
    if frame.over or len(p) < 2 or state.done >= state.of:
        return ""
    recent = p[p["wall_s"] >= p["wall_s"][-1] - 6 * SPEED_S]
    gained, took = int(recent["done"][-1] - recent["done"][0]), float(recent["wall_s"][-1] - recent["wall_s"][0])
    return f", {duration((state.of - state.done) * took / gained)} left" if gained > 0 else ""


def _numbers(frame: Frame, night: Tally, width: int) -> RenderableType:
    p = frame.pulse
    mjd, fast = night.origin_mjd_tai + night.at_s / 86400, speed(frame)
    pace = f", {fast:,.0f} × real time" if fast == fast else ""
    columns = CURVE if width >= NARROW[0] else NARROW[1]
    curves = _grid("", "cyan", "dim")
    for name, column, text in (
            ("queue", "waiting", f"{night.waiting:,} messages"),
            ("workers", "busy", f"{night.busy:,} busy, {night.idle:,} idle, {night.starting:,} starting of "
                                f"{night.cap:,}")):
        peak = f"to {int(p[column].max()):,}" if len(p) else ""
        curves.add_row(name, text, curve(p["at_s"], p[column], columns), peak)
    words = _grid("")
    words.add_row("clock", Text.assemble((clock(mjd), "bold"), f", MJD {mjd:.4f} TAI, {duration(night.at_s)} in{pace}"))
    return Group(words, curves, _alerts(night))


def _grid(*styles: str) -> Table:
    """Rows that begin with a name, all names as wide as the widest."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True, min_width=7)
    for style in styles:
        grid.add_column(style=style, no_wrap=len(styles) > 1)
    return grid


def _alerts(night: Tally) -> RenderableType:
    grid = _grid("")
    lost = sum(night.lost.values())
    why = ", ".join(f"{reason} {number:,}" for reason, number in
                    sorted(night.lost.items(), key=lambda item: -item[1]))
    grid.add_row("alerts", Text.assemble(
        f"{night.produced:,} produced, ", (f"{night.sent:,} sent", "bold"), ", ",
        (f"{night.late:,} late", "yellow" if night.late else ""), ", ", (f"{lost:,} lost", "red" if lost else ""),
        f" ({why})" if why else ""))
    on_time = night.on_time
    grid.add_row("latency", Text.assemble(
        f"from the end of readout: 50 % within {_within(night, 50)}, ", (f"98 % within {_within(night, 98)}", "bold"),
        "" if on_time != on_time else f", {100 * on_time:.1f} % within {LIMIT_S:g} s"))
    return grid


def _visits(night: Tally, width: int) -> RenderableType:
    labels = [label for label in CELLS if width >= NARROW[0] or label not in SPARED]
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("visit", no_wrap=True)
    table.add_column("opened", no_wrap=True)
    for label in (*labels, "alerts", "slowest"):
        table.add_column(label, justify="right", no_wrap=True)
    for visit in reversed(night.last):
        table.add_row(f"{visit.visit} {visit.band}", _shutter(visit, night), *_cells(visit, labels),
                      f"{visit.alerts:,}", _slowest(visit),
                      style="dim" if visit.sent == visit.detectors else "")
    return table


def _slowest(visit: VisitState) -> Text:
    if visit.slowest_s is None:
        return Text("")
    return Text(f"{visit.slowest_s:.0f} s", style="yellow" if visit.slowest_s > LIMIT_S else "")


def _shutter(visit: VisitState, night: Tally) -> str:
    ago = night.at_s - visit.opens_s
    return f"in {duration(-ago)}" if ago < 0 else f"{duration(ago)} ago"


def _cells(visit: VisitState, labels: Sequence[str]) -> Sequence[Text]:
    numbers = {"of": visit.detectors, "waiting": visit.waiting, "at work": visit.working, "saved": visit.saved,
               "sent": visit.sent, "failed": visit.failed}
    return [Text(f"{numbers[label]:,}" if numbers[label] else "·", style=CELLS[label] if numbers[label] else "dim")
            for label in labels]


__all__ = ["Frame", "Watcher", "clock", "curve", "drawn", "duration", "line", "speed", "watch"]
