import tracemalloc

import numpy as np
import pytest

from pipeline.alerts import read_cutout, read_packet
from pipeline.alerts.check import psf_flux
from schemas import ids
from twin.packets import FLUX_NJY, SHAPE, distinct, drawn


def test_every_packet_is_another_and_has_the_history_asked_for():
    segments = list(distinct(23, 4, 6, 7, per_detector=9))
    assert [len(segment) for segment in segments] == [9, 9, 5]
    packets = [packet for segment in segments for packet in segment.packets]
    assert len({packet[100:] for packet in packets}) == 23
    assert len({identifier for segment in segments for identifier in segment.ids.tolist()}) == 23
    earlier = []
    for segment in segments:
        for identifier, packet in zip(segment.ids.tolist(), segment.packets, strict=True):
            found = read_packet(packet)
            assert found["diaSourceId"] == identifier
            assert (len(found["prvDiaSources"]), len(found["prvDiaForcedSources"])) == (4, 6)
            assert found["diaObject"]["nDiaSources"] == 5
            assert found["observation_reason"].startswith("simulated")
            earlier += [row["diaSourceId"] for row in found["prvDiaSources"]]
            parts = ids.unpack(np.array([identifier]))
            assert (parts.visit[0], parts.detector[0]) == (segment.visit, segment.detector)
    assert len(set(earlier)) == len(earlier)


def test_packets_have_the_sizes_of_public_ones():
    """Public alerts: 104-119 kB without history, 250-300 kB with 300 and more earlier sources."""
    short, long = (next(iter(distinct(3, *history, 1))) for history in ((12, 12), (300, 500)))
    assert 110e3 < short.size / 3 < 130e3
    assert 245e3 < long.size / 3 < 300e3


def test_equal_seeds_give_equal_packets_and_others_others():
    first, again, other = (list(distinct(4, 2, 2, seed, per_detector=2)) for seed in (5, 5, 6))
    assert [segment.packets for segment in first] == [segment.packets for segment in again]
    assert not {*first[1].packets} & {*other[1].packets}
    assert first[1].packets == list(distinct(6, 2, 2, 5, per_detector=2))[1].packets


def test_a_cutout_holds_its_source_where_its_header_says():
    for contents in drawn(6, 1, 1, 3):
        assert (contents.sources["x"] < SHAPE[1]).all()
        for packet in contents.package().packets:
            found = psf_flux(read_cutout(read_packet(packet)["cutoutDifference"]), max_shift=1.0)
            assert found.flux == pytest.approx(FLUX_NJY, abs=5 * found.error)
            assert np.hypot(found.dx, found.dy) < 0.6


def test_packets_without_a_history():
    found = read_packet(next(iter(distinct(1, 0, 0, 1))).packets[0])
    assert (found["prvDiaSources"], found["prvDiaForcedSources"]) == (None, [])


def test_one_segment_at_a_time_is_in_memory():
    """40 segments of 1 MB each pass in the memory of a few."""
    list(distinct(8, 2, 2, 1))
    tracemalloc.start()
    try:
        total = sum(segment.size for segment in distinct(40 * 8, 2, 2, 1, per_detector=8))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total > 35e6
    assert peak < 8e6


def test_numbers_that_make_no_packets_are_refused():
    with pytest.raises(ValueError, match=r"may not be negative, got 3 packets, -1 sources"):
        next(iter(distinct(3, -1, 0, 1)))
