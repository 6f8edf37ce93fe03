"""Rows and requests for the tests of prompt stores."""

import numpy as np

from pipeline.ports import SaveRequest, Segment
from schemas.exposure import Box
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, SS_SOURCE, SUMMARY
from tests.strategies import random_rows

EVERYWHERE = Box(0.0, 360.0, -90.0, 90.0)


def summary(visit, detector):
    row = SUMMARY.empty(1)
    row["visit"], row["detector"] = visit, detector
    return row


def objects_at(ids, ra, dec, start):
    rows = DIA_OBJECT.empty(len(ids))
    rows["diaObjectId"], rows["ra"], rows["dec"], rows["validityStartMjdTai"] = ids, ra, dec, start
    return rows


def sources_of(ids, owners, time):
    rows = random_rows(DIA_SOURCE, len(ids), np.random.default_rng(1))
    rows["diaSourceId"], rows["diaObjectId"], rows["midpointMjdTai"] = ids, owners, time
    return rows


def forced_of(owners, visit, time):
    rows = DIA_FORCED_SOURCE.empty(len(owners))
    for name in ("ra", "dec", "timeProcessedMjdTai"):
        rows[name] = 1.0
    rows["diaForcedSourceId"], rows["diaObjectId"] = np.arange(len(owners)) + visit * 100, owners
    rows["visit"], rows["midpointMjdTai"] = visit, time
    return rows


def request(visit, detector=0, objects=None, sources=None, forced=None):
    return SaveRequest(visit, detector, DIA_OBJECT.empty() if objects is None else objects,
                       DIA_SOURCE.empty() if sources is None else sources,
                       DIA_FORCED_SOURCE.empty() if forced is None else forced, SS_SOURCE.empty(),
                       summary(visit, detector))


def segment(visit, detector=0, n=0):
    return Segment(visit, detector, np.arange(n) + visit * 1000, tuple(bytes([k]) * (k + 1) for k in range(n)))
