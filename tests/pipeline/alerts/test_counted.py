"""Packets counted against packets made: the same alerts, of nearly the same length."""

import numpy as np
import pytest
from msgspec.structs import replace

from pipeline.alerts.counted import Lengths
from pipeline.config import AlertConfig, PipelineConfig
from pipeline.errors import NonRetriableError
from pipeline.sinks.counting import CountingSink
from tests.twin.nights import Notes, night, ports_of, sky, visit_of

COUNTED = PipelineConfig(alert=AlertConfig(packets="counted"))


def test_counted_packets_have_the_ids_of_those_made_and_their_lengths_to_one_percent() -> None:
    visits, truth = [visit_of(i) for i in range(1, 6)], sky(16)
    made, counted = ports_of(), ports_of(sink=CountingSink())
    first, second = (night(visits, truth, ports, config) for ports, config in ((made, PipelineConfig()),
                                                                              (counted, COUNTED)))
    assert [s.n_alerts for s in first] == [s.n_alerts for s in second] == [16] * 5
    assert counted.sink.n_sent == len(made.sink.packets) == 80  # type: ignore[attr-defined]
    rows = [ports.recorder.rows("publication") for ports in (made, counted)
            if isinstance(ports.recorder, Notes)]
    np.testing.assert_array_equal(rows[0]["diaSourceId"], rows[1]["diaSourceId"])
    np.testing.assert_allclose(rows[1]["bytes"], rows[0]["bytes"], rtol=0.01)
    assert made.store.table("DiaSource").tobytes() == counted.store.table("DiaSource").tobytes()
    assert counted.store.unsent() == []


def test_a_sink_that_reads_packets_refuses_those_that_were_counted() -> None:
    with pytest.raises(NonRetriableError, match="counted and not made"):
        night([visit_of(1)], sky(4), ports_of(), COUNTED)
    lengths = Lengths(np.array([3, 4, 5]))
    assert lengths[1:].lengths.tolist() == [4, 5]


def test_another_word_than_bytes_or_counted_is_refused() -> None:
    with pytest.raises(ValueError, match=r"alert\.packets must be bytes or counted, got 'none'"):
        replace(COUNTED.alert, packets="none")
