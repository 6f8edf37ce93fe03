"""Streams on a real broker, read by a consumer that knows nothing of this project."""

from pathlib import Path

import numpy as np
import pytest

from reports.store import Store
from tests.servers.kafka import Kafka
from tests.twin.streams import CATALOGUE
from tests.twin.subscribed import arrivals, check_contents, check_counts, check_pace, subscribed
from twin import stream
from twin.conduct import Conduct
from twin.live_night import Place, run_live
from twin.pool import open_pool
from twin.posting import Disorder, lags
from twin.stream import Streaming, run_stream

SPEED = 40.0


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is rendered, so no process is needed."""
    monkeypatch.setattr(stream, "open_background", lambda processes: open_pool(1))


def test_a_subscriber_sees_each_alert_once_when_the_night_sends_it(kafka_server: Kafka, tmp_path: Path) -> None:
    topic = kafka_server.topic("stream-once")
    with subscribed(kafka_server.address(), topic, tmp_path / "notes") as subscriber:
        [sent] = run_stream(CATALOGUE, tmp_path / "run", f"kafka://{kafka_server.address()}/{topic}", Streaming(SPEED),
                            any_topic=True)
    notes = subscriber.notes
    assert not sent.ended
    rows = check_counts(notes, sent.folder)
    check_contents(notes)
    assert len(np.unique(rows["visit"])) == 6
    assert len(set(rows["diaSourceId"])) == len(notes) > 100
    assert [note["id"] for note in notes] == rows["diaSourceId"].tolist()
    assert (np.diff(rows["due_mjd_tai"]) >= 0).all()
    late = arrivals(notes, rows)
    assert late.min() > -0.02
    assert abs(np.median(late) - np.median(lags(rows))) < 0.5
    check_pace(notes, rows, SPEED, within_s=0.6 * 38 / SPEED)
    assert Store(sent.folder).facts()["complete"] == "True"


def test_what_is_doubled_late_or_out_of_order_is_what_the_table_says(kafka_server: Kafka, tmp_path: Path) -> None:
    topic = kafka_server.topic("stream-disorder")
    disorder = Disorder(duplicates=0.1, reorder=0.2, window_s=20.0, late=0.1, late_by_s=60.0)
    with subscribed(kafka_server.address(), topic, tmp_path / "notes") as subscriber:
        [sent] = run_stream(CATALOGUE, tmp_path / "run", f"kafka://{kafka_server.address()}/{topic}",
                            Streaming(3 * SPEED, disorder), any_topic=True)
    rows = check_counts(subscriber.notes, sent.folder)
    again = rows["copy"] == 1
    assert len(subscriber.notes) - len({note["id"] for note in subscriber.notes}) == again.sum() > 0
    assert rows["late"].any()
    assert (np.diff([note["mjd"] for note in subscriber.notes]) < 0).any()


def test_the_negative_control_a_night_without_a_pace_fails_the_check(kafka_server: Kafka, tmp_path: Path) -> None:
    """The speed ignored: all the alerts are there, and the rate is not."""
    class Hurry(stream.OnTheWall):
        def drive(self, *arguments: object, **named: object) -> None:
            self.clock.speed = 1e6
            super().drive(*arguments, **named)     # type: ignore[arg-type]  # handed on as they came

    topic = kafka_server.topic("stream-hurry")
    with subscribed(kafka_server.address(), topic, tmp_path / "notes") as subscriber, \
            pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "OnTheWall", Hurry)
        [sent] = run_stream(CATALOGUE, tmp_path / "run", f"kafka://{kafka_server.address()}/{topic}", Streaming(SPEED),
                            any_topic=True)
    rows = check_counts(subscriber.notes, sent.folder)
    with pytest.raises(AssertionError):
        check_pace(subscriber.notes, rows, SPEED, within_s=0.6 * 38 / SPEED)
    assert lags(rows).max() > 0.1          # no machine keeps up with a million, which is measured and said
    assert f"worst {lags(rows).max():.3f} s" in str(sent)


def test_a_stream_sends_the_packets_of_the_night_at_once(tmp_path: Path) -> None:
    """Byte for byte: nothing simulated depends on the wall."""
    run_live(CATALOGUE, Place(tmp_path / "run"), conduct=Conduct())
    [sent] = run_stream(CATALOGUE, tmp_path / "stream", f"file:{tmp_path / 'alerts'}", Streaming(3 * SPEED))
    at_once = {path.name: path.read_bytes() for path in (tmp_path / "run" / "alerts").iterdir()}
    assert at_once == {path.name: path.read_bytes() for path in (tmp_path / "alerts").iterdir()}
    assert len(at_once) > 10
    assert len(sent.rows) == len(Store(tmp_path / "run").table("publication"))
