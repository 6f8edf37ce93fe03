"""Objects that have shown themselves twice are measured, on the image alone, at their positions."""

import numpy as np
import pytest

from pipeline.config import ForcedConfig
from pipeline.forced import force, good_sources, on_detector, select
from schemas import ids
from schemas.exposure import Visit
from schemas.measures import FORCED, empty
from schemas.table import DIA_OBJECT, DIA_SOURCE
from schemas.wcs import Wcs

VISIT = Visit(2027082200012, "i", 30.0, -20.0, 0.0, 61640.25, 30.0)
SHAPE = (1000, 1000)
WCS = Wcs.tangent(30.0, -20.0, SHAPE)


class Flat:
    """Pixels that answer with the x of each position."""

    def force(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        rows = empty(FORCED, len(ra))
        rows["x"], rows["y"] = WCS.pixels(ra, dec)
        rows["inside"] = (rows["x"] >= 0) & (rows["x"] < 1000)
        rows["psfFlux"], rows["psfFluxErr"], rows["scienceFlux"], rows["scienceFluxErr"] = rows["x"], 1.0, 2.0, 3.0
        return rows

    def close(self) -> None:
        pass


def sources_of(object_ids: list[int]) -> np.ndarray:
    rows = DIA_SOURCE.empty(len(object_ids))
    rows["diaObjectId"], rows["reliability"], rows["trailLength"] = object_ids, 0.9, 1.0
    return rows


def objects_at(x: list[float], y: list[float], n_sources: int = 2) -> np.ndarray:
    rows = DIA_OBJECT.empty(len(x))
    rows["diaObjectId"], rows["nDiaSources"] = 1 + np.arange(len(x)), n_sources
    rows["ra"], rows["dec"] = WCS.sky(np.array(x), np.array(y))
    return rows


def test_two_good_sources_are_needed() -> None:
    objects = objects_at([10.0] * 3, [10.0] * 3)
    assert select(objects, sources_of([1, 1, 2, 3, 3, 3, 9]), ForcedConfig()).tolist() == [0, 2]
    objects["nDiaSources"][2] = 1
    assert select(objects, sources_of([1, 1, 2, 3, 3, 3]), ForcedConfig()).tolist() == [0]


@pytest.mark.parametrize(("column", "value", "good"), [
    ("reliability", 0.5, True), ("reliability", 0.49, False), ("reliability", np.nan, False),
    ("trailLength", 1.4, True), ("trailLength", 1.41, False), ("trailLength", np.nan, True),
    ("glint_trail", True, False), ("isDipole", True, False)])
def test_a_good_source_is_reliable_and_no_trail_glint_or_dipole(column: str, value: object, good: bool) -> None:
    rows = sources_of([1, 1])
    rows[column][0] = value
    assert good_sources(rows, ForcedConfig()).tolist() == [good, True]
    assert len(select(objects_at([1.0], [1.0]), rows, ForcedConfig())) == good


def test_rows_belong_to_objects_on_the_image_and_say_when() -> None:
    objects = objects_at([10.0, -30.0, 500.0], [20.0, 20.0, 20.0])
    assert on_detector(objects, WCS, SHAPE).tolist() == [True, False, True]
    rows = force(Flat(), objects, VISIT, 5, 61640.26)
    assert rows["diaObjectId"].tolist() == [1, 3]
    np.testing.assert_allclose(rows["psfFlux"], [10, 500], rtol=1e-5)
    for name in ("ra", "dec"):
        assert rows[name].tolist() == objects[name][[0, 2]].tolist()
    parts = ids.unpack(rows["diaForcedSourceId"])
    assert (parts.visit.tolist(), parts.counter.tolist()) == ([VISIT.visit] * 2, [0, 1])
    assert set(rows["band"]) == {b"i"}
    assert set(rows["midpointMjdTai"]) == {61640.25}
    assert set(rows["timeProcessedMjdTai"]) == {61640.26}


def test_nothing_to_measure() -> None:
    nothing = DIA_OBJECT.empty(0)
    assert len(select(nothing, sources_of([1, 1]), ForcedConfig())) == 0
    assert len(force(Flat(), nothing, VISIT, 5, 0.0)) == 0
