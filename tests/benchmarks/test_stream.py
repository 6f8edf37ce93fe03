"""The test stream at the real cadence: a night on the wall clock, a real broker, a subscriber in another process.

One detector of 4000 x 4072 px is rendered, 20 are drawn from truth. Ten minutes from the first shutter, or as many as
ALERT_TWIN_STREAM_MINUTES says: `pytest -m bench tests/benchmarks/test_stream.py -s`. The templates are made before.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from reports.store import Store
from tests.servers.fetch import missing
from tests.servers.fixtures import need
from tests.servers.kafka import Kafka
from tests.twin.streams import CATALOGUE
from tests.twin.subscribed import arrivals, check_contents, check_counts, check_pace, subscribed, visits_begin
from twin import stream
from twin.posting import lags
from twin.stream import Streaming, run_stream

pytestmark = pytest.mark.bench

MINUTES = float(os.environ.get("ALERT_TWIN_STREAM_MINUTES", "10"))
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    need(missing())
    made = Kafka(tmp_path_factory.mktemp("broker")).start()
    yield made
    made.kill()


def test_a_subscriber_sees_the_rate_the_order_and_the_schema_that_are_promised(broker: Kafka, tmp_path: Path) -> None:
    topic = broker.topic("alerts-simulated", **{"max.message.bytes": "8000000"})
    visits = max(2, round(MINUTES * 60 / 39.2))
    command = [sys.executable, "-m", "twin.cli", "stream", str(ROOT / "scenarios" / "stream.toml"), "--kafka",
               broker.address(), "--out", str(tmp_path / "run"), f"simulation.cadence.pairs={visits}",
               "simulation.cadence.pair_gap_min=600"]
    with subscribed(broker.address(), topic, tmp_path / "notes") as subscriber:
        begun = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as streaming:
            assert streaming.stderr is not None
            first = streaming.stderr.readline()
            assert first.startswith("the clock runs"), first + streaming.stderr.read()
            prepared_s = time.monotonic() - begun
            time.sleep((visits - 1) * 39.2 + 90.0)      # the last visit's alerts are out, the second half is hours away
            streaming.send_signal(signal.SIGINT)
            said, more = streaming.communicate(timeout=120)
        assert streaming.returncode == 0, more
    notes = subscriber.notes
    rows = check_counts(notes, tmp_path / "run", every=False)
    check_contents(notes)
    log = Store(tmp_path / "run").table("exposure_log")
    rendered = log[log["fidelity"] == b"pixels"]
    assert len(rendered) == visits
    assert (log["status"] == b"done").all()
    assert len(log) == 21 * visits
    late = arrivals(notes, rows)
    apart = np.diff(visits_begin(notes))
    print(f"\n{visits} visits, {len(log)} detector-visits, prepared in {prepared_s:.0f} s\n{said}{more}"
          f"{len(notes)} messages of {sum(note['bytes'] for note in notes) / len(notes) / 1000:.0f} kB, "
          f"{3 * len(notes)} cutouts decoded\n"
          f"visits {np.median(apart):.2f} s apart ({apart.min():.2f} to {apart.max():.2f})\n"
          f"due to received: median {np.median(late):.3f}, 99 % {np.percentile(late, 99):.3f}, "
          f"worst {late.max():.3f} s")
    assert [note["id"] for note in notes] == rows["diaSourceId"].tolist()
    assert (np.diff(rows["due_mjd_tai"]) >= 0).all()
    assert len({note["id"] for note in notes}) == len(notes)
    check_pace(notes, rows, 1.0, within_s=1.0)
    assert np.percentile(late, 99) < 1.0


def test_a_broker_that_goes_away_and_comes_back_has_everything_once(tmp_path: Path) -> None:
    """And is waited for; what was under way when it went is told apart by the outbox's position."""
    need(missing())
    broker = Kafka(tmp_path / "broker").start()
    try:
        topic, heard = broker.topic("stream-outage"), list[str]()

        def restart(conduct: stream.OnTheWall, seconds: float) -> bool:
            if len(conduct.rows) > 2 and "down" not in heard:
                heard.append("down")
                broker.kill()
            if any("the alerts wait: " in line for line in heard) and "up" not in heard:
                heard.append("up")
                broker.start()
            return rest(conduct, seconds)

        rest = stream.OnTheWall._rest
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stream.OnTheWall, "_rest", restart)
            [sent] = run_stream(CATALOGUE, tmp_path / "run", f"kafka://{broker.address()}/{topic}", Streaming(40.0),
                                any_topic=True, say=heard.append)
        with subscribed(broker.address(), topic, tmp_path / "notes") as subscriber:
            pass
    finally:
        broker.kill()
    rows = check_counts(subscriber.notes, sent.folder)
    assert not sent.ended
    assert len(set(rows["diaSourceId"])) == len(rows)
    assert "up" in heard
    assert lags(rows).max() > 1.0
