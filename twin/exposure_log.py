"""What becomes of a detector-visit, in its row of EXPOSURE_LOG."""

import numpy as np

from pipeline.prompt import Summary
from schemas.exposure import Visit
from schemas.measures import EXPOSURE_LOG, empty


def unseen(visit: Visit, detector: int) -> np.ndarray:
    """EXPOSURE_LOG of an image that no pixel half has had, one row."""
    log = empty(EXPOSURE_LOG, 1)
    log["visit"], log["detector"], log["band"] = visit.visit, detector, visit.band
    log["midpointMjdTai"], log["shutter_close_mjd_tai"] = visit.mjd_tai, visit.shutter_close_mjd_tai
    return log


def end(log: np.ndarray, summary: Summary | None, status: str, reason: str) -> None:
    """Fill in, in place, how it ended and what it saved."""
    log["status"], log["reason"] = status, " ".join(reason.split()).encode()[:64]
    log["n_alerts"] = log["n_sources"] = log["n_new_objects"] = 0
    if summary is not None:
        log["n_sources"], log["n_new_objects"] = summary.n_sources, summary.n_new_objects
        log["n_alerts"] = summary.n_alerts


__all__ = ["end", "unseen"]
