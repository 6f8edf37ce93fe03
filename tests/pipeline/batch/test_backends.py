"""A whole morning on every prompt store."""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.batch.journal import Journal
from pipeline.batch.kept import Kept, MemoryArchive
from pipeline.batch.morning import Night, morning
from pipeline.batch.retract import retract
from pipeline.config import AssociateConfig, PipelineConfig
from pipeline.steps import run
from schemas.table import take
from schemas.wcs import Wcs
from tests.twin.mornings import concurrent_night, judge, missed
from tests.twin.nights import DETECTOR, SHAPE, measured_of, sky, visit_of

NO_RELOAD = PipelineConfig(associate=AssociateConfig(reload=False))


def test_a_morning_on_every_store(store: Any, tmp_path: Path) -> None:
    truth = sky(20)
    visits = [visit_of(i, minutes=34.0 * i / 60 + 1.0) for i in range(1, 6)]
    early = truth.copy()
    early["flux"][:5] = early["science_flux"][:5] = 0.0          # five sources begin in the fourth visit
    ports = concurrent_night(visits, lambda visit: truth if visit.visit >= visits[3].visit else early, NO_RELOAD, store,
                             lost=(2,))
    assert judge(store, truth).duplicates >= 20
    archive = MemoryArchive()
    kept = Kept(visits[0], DETECTOR, Wcs.tangent(330.0, -12.0, SHAPE), SHAPE)
    archive.put(kept, measured_of(visits[0], early).pixels)
    night = Night(20270822, visits[0].mjd_tai, visits[-1].mjd_tai + 1e-5, store, ports, NO_RELOAD,
                  Journal(tmp_path / "journal.jsonl"), lambda: missed(visits, early), archive, lambda: {"visits": 5})
    results = run(morning(night))
    assert results["catchup"]["done"] == 1
    assert (judge(store, truth).duplicates, judge(store, truth).merged) == (0, 0)
    assert results["precovery"]["points"] == 5
    kinds = set(store.updates()["updateType"].tolist())
    assert {b"reassign_diasource_to_diaobject", b"close_diaobject_validity"} <= kinds
    sources = store.table("DiaSource")
    gone = take(sources, sources["visit"] == visits[4].visit)
    done = run(retract(store, ports.clock, gone, store.table("DiaForcedSource")[:0], "a test", NO_RELOAD))
    assert (done.sources, done.closed, done.changed) == (20, 0, 20)
    assert b"withdraw_diasource" in set(store.updates()["updateType"].tolist())
    objects = store.table("DiaObject")
    assert sorted(objects["nDiaSources"][np.isnan(objects["validityEndMjdTai"])].tolist()) == [1] * 5 + [4] * 15
