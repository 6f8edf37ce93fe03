"""A stream on a real broker with a subscriber in another process, and what must hold of it."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reports.store import Store


@dataclass
class Subscriber:
    """A consumer that knows nothing of this project; `notes` are there when it has ended."""

    path: Path
    notes: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def subscribed(broker: str, topic: str, path: Path) -> Iterator[Subscriber]:
    """Subscribe meanwhile; then everything has been read."""
    process = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.subscriber", broker, topic, str(path)],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    subscriber = Subscriber(path)
    try:
        assert process.stdout.readline() == "ready\n"
        yield subscriber
        process.stdin.close()
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    subscriber.notes = [json.loads(line) for line in path.read_text().splitlines()]


def check_counts(notes: list[dict[str, Any]], folder: Path, *, every: bool = True) -> np.ndarray:
    """Every message that the table promises came, and no other; its SENDING rows. `every`: of every source, too."""
    rows = Store(folder).table("sending")
    assert Counter(note["id"] for note in notes) == Counter(rows["diaSourceId"].tolist())
    sources = set(Store(folder).table("DiaSource")["diaSourceId"].tolist())
    assert set(rows["diaSourceId"].tolist()) <= sources
    assert not every or len(set(rows["diaSourceId"].tolist())) == len(sources)
    return rows


def check_contents(notes: list[dict[str, Any]]) -> None:
    """Schema, cutouts and headers of every message."""
    for note in notes:
        assert note["schema"] == 1101
        assert all(30 <= side <= 102 for shape in note["shapes"] for side in shape)
        assert note["good"] > 0
        assert note["headers"]["simulated"] == "true"


def arrivals(notes: list[dict[str, Any]], rows: np.ndarray) -> np.ndarray:
    """(n,) seconds from when each message was due to when the subscriber had it, in the order of arrival.

    What is due is what the header's clock makes of the night's time: nothing that the stream measured itself. Copies of
    one alert are taken in the order of their times.
    """
    due: dict[int, list[float]] = {}
    for identifier, mjd in sorted(zip(rows["diaSourceId"].tolist(), rows["due_mjd_tai"].tolist(), strict=True)):
        due.setdefault(identifier, []).append(mjd)
    out = []
    for note in sorted(notes, key=lambda note: note["arrived"]):
        clock = {name: float(value) for name, _, value in
                 (part.partition("=") for part in note["headers"]["simulated_clock"].split(";"))}
        mjd = due[note["id"]].pop(0)
        out.append(note["arrived"] - clock["unix"] - 86400 * (mjd - clock["mjd_tai"]) / clock["speed"])
    return np.array(out)


def visits_begin(notes: list[dict[str, Any]]) -> np.ndarray:
    """(visits,) when the first message of each visit came [s]."""
    first: dict[int, float] = {}
    for note in notes:
        first[note["visit"]] = min(note["arrived"], first.get(note["visit"], np.inf))
    return np.array([first[visit] for visit in sorted(first)])


def check_pace(notes: list[dict[str, Any]], rows: np.ndarray, speed: float, within_s: float) -> None:
    """Visits come as far apart as the night has them: what a stream without a pace fails."""
    promised = [86400 * rows["due_mjd_tai"][rows["visit"] == visit].min() / speed for visit in np.unique(rows["visit"])]
    found = np.diff(visits_begin(notes))
    assert np.abs(found - np.diff(promised)).max() < within_s, (found, np.diff(promised))
