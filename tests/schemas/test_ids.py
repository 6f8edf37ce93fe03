from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.alerts import read_packet
from schemas import ids

DAYS = st.dates(ids.FIRST_DAY, ids.FIRST_DAY + timedelta(days=(1 << ids.DAY_BITS) - 1))


@given(day=DAYS, sequence=st.integers(0, 32767), detector=st.integers(0, 255), release=st.integers(0, 63),
       counters=st.lists(st.integers(0, ids.MAX_COUNT - 1), max_size=5))
def test_ids_unpack_to_what_was_packed(day, sequence, detector, release, counters):
    written = day.year * 10_000 + day.month * 100 + day.day
    visit = ids.visit_id(written, sequence)
    parts = ids.unpack(ids.source_ids(visit, detector, np.array(counters, int), release=release))
    n = len(counters)
    assert parts.visit.tolist() == [visit] * n
    assert parts.detector.tolist() == [detector] * n
    assert parts.release.tolist() == [release] * n
    assert parts.counter.tolist() == counters
    assert ids.split_visit(visit) == (written, sequence)


def test_the_layout_reproduces_visit_and_detector_of_real_alerts(shared_data):
    checked = 0
    for path in sorted((shared_data / "rubin_alerts").glob("1*.bin")):
        alert = read_packet(path.read_bytes())
        rows = [(row["diaSourceId"], row) for row in [alert["diaSource"], *(alert["prvDiaSources"] or [])]]
        rows += [(row["diaForcedSourceId"], row) for row in alert["prvDiaForcedSources"] or []]
        parts = ids.unpack(np.array([identifier for identifier, _ in rows]))
        assert parts.visit.tolist() == [row["visit"] for _, row in rows]
        assert parts.detector.tolist() == [row["detector"] for _, row in rows]
        trigger = alert["diaSource"]
        packed = ids.source_ids(trigger["visit"], trigger["detector"], parts.counter[:1], release=1)
        assert packed.tolist() == [trigger["diaSourceId"]]
        checked += len(rows)
    assert checked > 4000


def test_the_observing_day_changes_at_noon_utc():
    assert ids.day_obs(61105.094) == 20260305        # 02:15 UTC of 6 March: a visit of the night of the 5th
    assert ids.day_obs(61105.49) == 20260305
    assert ids.day_obs(61105.51) == 20260306


@pytest.mark.parametrize(("call", "message"), [
    (lambda: ids.visit_id(20261301, 1), "an observing day is written YYYYMMDD, got 20261301"),
    (lambda: ids.visit_id(20260305, 40000), "sequence number must be 0 to 32767, got 40000"),
    (lambda: ids.source_ids(2026030500001, 256, np.arange(2)), "detector must be 0 to 255, got 256"),
    (lambda: ids.source_ids(2026030500001, 5, np.arange(2), release=64), "release must be 0 to 63, got 64"),
    (lambda: ids.source_ids(2026030500001, 5, np.array([1 << 19])), "counters must be 0 to 524287"),
    (lambda: ids.source_ids(2026030540001, 5, np.arange(2)), "sequence number must be below 32768, got 40001"),
    (lambda: ids.source_ids(42, 5, np.arange(2)), "written YYYYMMDD, got 0"),
    (lambda: ids.source_ids(1999010100001, 5, np.arange(2)), "got 19990101"),
])
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_first_day_is_day_zero():
    assert ids.source_ids(2010010100000, 0, np.array([5])).tolist() == [5]
    assert date(2010, 1, 1) == ids.FIRST_DAY
