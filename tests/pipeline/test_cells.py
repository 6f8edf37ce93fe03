"""Boxes on the sky by cells: what is found is what looking at everything finds."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.ports import SaveRequest
from pipeline.stores.cells import NOWHERE, Cells, cells
from pipeline.stores.memory import MemoryStore
from schemas.exposure import Box
from tests.pipeline.stores import objects_at, request, segment

RNG = np.random.default_rng(5)
RA = np.concatenate([RNG.uniform(0, 360, 4000), RNG.uniform(359.9, 360.1, 500) % 360, np.zeros(4), [360.0 - 1e-14]])
DEC = np.concatenate([np.degrees(np.arcsin(RNG.uniform(-1, 1, 4000))), RNG.uniform(-0.2, 0.2, 500),
                      [-90.0, 90.0, 0.0, -0.25], [0.0]])
PLACES = Cells()
for row, cell in enumerate(cells(RA, DEC).tolist()):
    PLACES.add(cell, row)


@settings(deadline=None, max_examples=200)
@example(0.0, 90.0, 20.0)
@example(0.0, 0.0, 0.0)
@example(359.99, -0.25, 400.0)
@given(st.floats(0, 359.999), st.floats(-90, 90), st.floats(0, 4000))
def test_every_position_in_a_box_is_in_its_cells(ra: float, dec: float, margin_arcsec: float) -> None:
    box = Box.around(np.array([ra]), np.array([dec]), margin_arcsec)
    near = PLACES.near(box)
    assert np.all(np.diff(near) > 0)
    assert set(np.flatnonzero(box.contains(RA, DEC)).tolist()) <= set(near.tolist())


def test_a_detectors_box_is_found_among_few_others() -> None:
    places = Cells()
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(10, 30, 20_000), rng.uniform(-40, -20, 20_000)
    for row, cell in enumerate(cells(ra, dec).tolist()):
        places.add(cell, row)
    box = Box(20.0, 20.25, -30.1, -29.9)
    assert np.sum(box.contains(ra, dec)) <= len(places.near(box)) < 100


def test_no_position_is_nowhere_and_in_no_box() -> None:
    assert cells(np.array([np.nan, 1.0]), np.array([0.0, np.nan])).tolist() == [NOWHERE, NOWHERE]


@pytest.mark.parametrize("moved_deg", [0.0, 1e-5, 0.7])
def test_a_store_finds_the_newest_version_where_it_is_now(moved_deg: float) -> None:
    store, ids = MemoryStore(), np.arange(1, 201)
    ra, dec = np.linspace(359.0, 361.0, 200) % 360, np.linspace(-1.0, 1.0, 200)
    store.save(request(1, objects=objects_at(ids, ra, dec, 60000.0)), segment(1))
    store.save(request(2, objects=objects_at(ids[:100], (ra[:100] + moved_deg) % 360, dec[:100], 60001.0)), segment(2))
    rows = store.table("DiaObject")
    for box in (Box(359.2, 0.6, -0.8, 0.8), Box(0.0, 360.0, -90.0, 90.0), Box(359.9, 0.1, -0.1, 0.1)):
        expected = rows[box.contains(rows["ra"], rows["dec"]) & np.isnan(rows["validityEndMjdTai"])]
        assert store.objects(box).tobytes() == expected.tobytes()
    store.set_validity_end(ids[:50], 60002.0)
    assert len(store.objects(Box(0.0, 360.0, -90.0, 90.0))) == 150


def test_space_that_is_not_used_is_not_filled() -> None:
    """Growth keeps the rows before; the request's own rows are not aliased."""
    store = MemoryStore()
    for k in range(40):
        given = objects_at(np.arange(20) + 100 * (k + 1), np.full(20, 5.0 * k), np.zeros(20), 60000.0 + k)
        store.save(SaveRequest(k, 0, given, *(getattr(request(k), name) for name in (
            "sources", "forced", "ss_sources", "summary"))), segment(k))
        given["ra"] = -1.0
    rows = store.table("DiaObject")
    assert rows["diaObjectId"].tolist() == [100 * (k + 1) + i for k in range(40) for i in range(20)]
    assert rows["ra"].tolist() == [5.0 * k for k in range(40) for _ in range(20)]
