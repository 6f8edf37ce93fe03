"""The packets of one detector-visit: wire header, schemaless Avro, cutouts."""

import numpy as np

from pipeline.config import AlertConfig
from pipeline.images import Cutouts
from pipeline.ports import History, Segment
from schemas.exposure import Visit
from schemas.wcs import Wcs


def package(visit: Visit, detector: int, sources: np.ndarray, objects: np.ndarray, history: History,
            forced: np.ndarray, ss_sources: np.ndarray, orbits: np.ndarray, *, difference: Cutouts, science: Cutouts,
            template: Cutouts, wcs: Wcs, config: AlertConfig) -> Segment:
    """One packet per source, in the order of `sources`.

    Parameters
    ----------
    sources : DIA_SOURCE
        The triggers; diaObjectId or ssObjectId says what each belongs to.
    objects : DIA_OBJECT
        Newest versions, one per diaObjectId of `sources`; others are ignored.
    history : History
        Earlier sources and forced sources of those objects in any order; rows older than `config.history_days`,
        later than this visit, and the triggers themselves are left out here.
    forced : DIA_FORCED_SOURCE
        This visit's own forced photometry, which closes each object's forced history.
    ss_sources : SS_SOURCE
        One per source with an ssObjectId, by diaSourceId.
    orbits : MPC_ORBITS
        By designation of `ss_sources`.
    difference, science, template : Cutouts
        One stamp per source, parallel to `sources`. A stamp of side s begins at pixel floor(x) - s // 2 in x and
        likewise in y; a stamp without pixels (its centroid off the image) is a null in the packet.
    wcs : Wcs
        Of the science image.
    """
    raise NotImplementedError


__all__ = ["package"]
