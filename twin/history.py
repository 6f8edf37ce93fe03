"""Templates: the simulators draw earlier visits, the pipeline calibrates and coadds them, on one grid per run."""

from pathlib import Path

import numpy as np

from pipeline.calibrate import calibrate
from pipeline.errors import AlgorithmError, NoWorkFound
from pipeline.footprint import PRELOAD_MARGIN_ARCSEC, footprint_box
from pipeline.images import Calibrated, Template
from pipeline.ingest import read_template, write_template
from pipeline.template import coadd
from schemas.exposure import Exposure
from schemas.raw import RawExposure
from schemas.wcs import Wcs
from twin.observatory import Observatory


def template_path(folder: Path, band: str) -> Path:
    """Where a run keeps the template of a band."""
    return folder / "templates" / f"{band}.fits"


def references(observatory: Observatory, exposure: Exposure | RawExposure) -> np.ndarray:
    """REFERENCE rows around an exposure."""
    box = footprint_box(exposure.wcs, exposure.shape, PRELOAD_MARGIN_ARCSEC)
    return observatory.sky.references(box, observatory.seed)


def grid(observatory: Observatory) -> tuple[Wcs, tuple[int, int]]:
    """A grid about the field that covers every detector of every visit of the night, with the margin."""
    config = observatory.config
    camera = config.camera
    plain = Wcs.tangent(config.field.ra, config.field.dec, (1, 1), scale_arcsec=camera.scale_arcsec)
    x, y = [], []
    edge_x, edge_y = np.array([-0.5, camera.nx - 0.5]), np.array([-0.5, camera.ny - 0.5])
    for visit in observatory.visits:
        for detector in camera.imaged:
            wcs = observatory.facts(visit, detector).wcs
            corner = plain.pixels(*wcs.sky(np.tile(edge_x, 2), np.repeat(edge_y, 2)))
            x.append(corner[0])
            y.append(corner[1])
    margin = observatory.scenario.history.margin_px
    low_x, low_y = int(np.floor(np.min(x))) - margin, int(np.floor(np.min(y))) - margin
    shape = int(np.ceil(np.max(y))) + margin - low_y + 1, int(np.ceil(np.max(x))) + margin - low_x + 1
    return plain.shifted(low_x, low_y), shape


def make_template(observatory: Observatory, band: str, path: Path) -> str:
    """Draw, calibrate and coadd the earlier visits of a band into a file; gives a line that says what became of them.

    An earlier exposure that cannot be calibrated is left out; without any there is no template, and the visits of the
    band have no work.
    """
    inputs: list[Calibrated] = []
    lost: list[str] = []
    for visit in observatory.earlier[band]:
        for detector in observatory.config.camera.imaged:
            exposure = observatory.expose_earlier(visit, detector)
            try:
                inputs.append(calibrate(exposure, references(observatory, exposure),
                                        observatory.scenario.pipeline.calibrate, given_zeropoint=np.nan))
            except AlgorithmError as error:
                lost.append(f"{visit.visit}/{detector}: {error}")
    wcs, shape = grid(observatory)
    try:
        template = coadd(inputs, wcs, shape, observatory.scenario.pipeline.template)
    except NoWorkFound as error:
        return f"no template in {band}: {error}" + (f"; left out {'; '.join(lost)}" if lost else "")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_template(path, template)
    return f"{len(inputs)} exposures" + (f", left out {'; '.join(lost)}" if lost else "")


def load_template(folder: Path, band: str) -> Template | None:
    """The template of a band, None where none was made."""
    path = template_path(folder, band)
    return read_template(path) if path.is_file() else None
