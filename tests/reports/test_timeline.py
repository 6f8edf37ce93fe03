"""The night's timeline: workers' rows, what the page's script reads, and the visit that is drawn."""

import base64
import zlib

import numpy as np
import pytest

from reports.delays import HELD
from reports.requirement import VISIT
from reports.timeline import packed, plot_workers, window, worker_rows, workers_raster, worst
from schemas.measures import PASSAGE, empty

STATIONS = ("taken_s", "preloaded_s", "seen_s", "measured_s", "saved_s")


def night() -> np.ndarray:
    """Two visits of two detectors: pods 0 and 1, then 0 again, and one that is never taken."""
    rows = empty(PASSAGE, 4)
    rows["visit"], rows["detector"] = (10, 10, 11, 11), (0, 1, 0, 1)
    rows["reason"] = (b"", b"timeout", b"", b"not taken")
    rows["pod"] = (0, 1, 0, -1)
    begin = np.array([0.0, 5.0, 50.0, np.nan])
    for k, name in enumerate(STATIONS):
        rows[name] = begin + 8.0 * k
    rows["measured_s"][1] = rows["saved_s"][1] = np.nan       # cut short while it measured
    rows["freed_s"] = begin + np.array([40.0, 95.0, 40.0, np.nan])
    rows["delivered_s"] = begin + np.array([35.0, np.nan, 33.3, np.nan])
    return rows


def visits(*p98: float, on_time: int = 0) -> np.ndarray:
    out = np.zeros(len(p98), VISIT)
    out["visit"], out["readout_end_s"], out["alerts"] = 10 + np.arange(len(p98)), 20.0 + 40.0 * np.arange(len(p98)), 10
    out["p98_s"], out["on_time"] = p98, on_time
    return out


def test_workers_have_a_row_each_and_pods_that_follow_share_one() -> None:
    rows = night()[:3]
    assert worker_rows(rows).tolist() == [0, 1, 0]
    rows["pod"][2] = 2                                        # a new pod where the first one was
    assert worker_rows(rows).tolist() == [0, 1, 0]
    rows["freed_s"][0] = 60.0
    assert worker_rows(rows).tolist() == [0, 1, 2]


def test_the_raster_shows_what_holds_each_worker_in_the_order_of_their_messages() -> None:
    image = workers_raster(night(), 0.0, 100.0, at=60.0, columns=100)
    assert image.shape == (2, 100)
    late, early = image[1], image[0]                          # the one that took its message last is above
    assert np.unique(early[5:100]).tolist() == [1, 2, 3]      # preload, image, pixels to the end
    assert (early[21:100] == 3).all()
    assert late[:40].tolist() == [1] * 8 + [2] * 8 + [3] * 8 + [4] * 8 + [5] * 8
    assert not late[40:50].any()
    assert workers_raster(night(), 60.0, 90.0, at=60.0).shape[0] == 2
    assert workers_raster(night(), 41.0, 49.0, at=45.0).shape[0] == 1      # only who does anything then


def test_the_page_gets_every_detector_visit() -> None:
    rows = night()
    made = packed(rows, visits(50.0, 60.0))
    data = zlib.decompress(base64.b64decode(made["data"]))
    assert len(data) == 4 * (4 + 2 * len(HELD) + 2 + 2 + 1)
    taken = np.frombuffer(data[:16], "<u4")
    assert taken.tolist() == [0, 50, 500, 2**32 - 1]
    held = np.frombuffer(data[16:16 + 8 * len(HELD)], "<u2").reshape(len(HELD), 4)
    assert held[:, 0].tolist() == [80] * 5
    assert held[:, 1].tolist() == [80, 80, 790, 0, 0]         # its pixels until the worker was free
    delivered, row = np.frombuffer(data[16 + 8 * len(HELD):-4], "<u2").reshape(2, 4)
    assert delivered.tolist() == [350, 65535, 333, 65535]
    assert row.tolist() == [0, 1, 0, 65535]
    assert [made["reasons"][k] for k in data[-4:]] == ["", "timeout", "", "not taken"]
    assert (made["n"], made["detectors"], made["rows"], made["worst"]) == (4, 2, 2, 1)


@pytest.mark.parametrize(("p98", "on_time", "number"), [
    ((50.0, 70.0, 60.0), 0, 1), ((50.0, np.inf, 60.0), 0, 2), ((np.inf, np.inf, np.inf), 0, 2)])
def test_the_worst_visit_is_the_slowest_that_was_sent(p98: tuple[float, ...], on_time: int, number: int) -> None:
    assert worst(visits(*p98, on_time=on_time)) == number


def test_more_late_alerts_are_worse_than_slower_ones() -> None:
    some = visits(900.0, 70.0)
    some["on_time"] = (9, 2)
    assert worst(some) == 1


def test_what_is_drawn_holds_the_work_even_where_it_came_long_after_the_readout() -> None:
    begin, end = window(night(), visits(50.0))
    assert begin < 0.0
    assert end == 160.0
    later = night()
    for name in (*STATIONS, "freed_s"):
        later[name] += 3600.0
    begin, end = window(later, visits(50.0))
    assert 3300.0 < begin < 3600.0
    assert 3700.0 < end < begin + 1200.1
    nobody = empty(PASSAGE, 2)
    nobody["visit"] = 10
    assert window(nobody, visits(np.inf)) == (20.0 - 180.0, 20.0 + 60.0)
    assert plot_workers(nobody, visits(np.inf), "counts · modelled").axes
