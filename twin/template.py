"""The command `alert-twin template`: a template file from a run, from its bundle, or from FITS files."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from pipeline import ingest, service
from pipeline.depth import depth
from pipeline.errors import InputError
from pipeline.make_template import Made, Source, make_template
from pipeline.pixel_config import PixelConfig
from schemas.exposure import Exposure
from schemas.measures import REFERENCE, empty
from twin.process import fits_files


def write_template_file(inputs: Sequence[Path], out: Path, *, config: Path | None = None, band: str = "",
                        like: Path | None = None, incremental: bool = False) -> str:
    """Make the template of exposures and write it; a line that says what came of it.

    `inputs` are FITS files and folders of them, or one run folder, or one bundle. InputError where `out` exists; the
    file appears when it is whole.
    """
    if out.exists():
        raise InputError(f"{out}: exists; name another file or remove it")
    if len(inputs) == 1 and (inputs[0] / "scenario.toml").is_file():
        sources, references, zeropoint, settings = _of_run(inputs[0], band)
        site = service.SiteConfig()
    else:
        if config is None and len(inputs) == 1 and (inputs[0] / "site.toml").is_file():
            config = inputs[0] / "site.toml"
        site, folder = service.read_site(config)
        sources, references, zeropoint, settings = _of_files(inputs, site, folder)
    wanted = None if like is None else ingest.read_exposure(like, site.header)
    chosen = msgspec.structs.replace(settings.template, incremental=incremental or settings.template.incremental)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
            made = make_template(sources, references, Path(scratch), settings.calibrate, chosen, band=band,
                                 given_zeropoint=zeropoint, like=wanted)
            whole = Path(scratch) / out.name
            ingest.write_template(whole, made.template, depth=depth(made.template))
            whole.replace(out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error})") from None
    return _told(made, out)


def _told(made: Made, out: Path) -> str:
    template = made.template
    covered = template.n_inputs[template.n_inputs > 0]
    fwhm, typical = template.psf.fwhm(template.wcs.scale_arcsec), int(np.median(covered)) if len(covered) else 0
    share, (ny, nx) = len(covered) / template.image.size, template.shape
    line = (f"{len(set(template.inputs))} visits in {template.band}, FWHM {fwhm:.2f} arcsec, {typical} deep over "
            f"{share:.0%} of {nx} x {ny} pixels, in {out}")
    left = [f"{len(made.unused)} not chosen"] * bool(made.unused) + [f"left out {name}" for name in made.lost]
    return "; ".join([line, *left])


Found = tuple[list[Source], Callable[[Exposure], np.ndarray], float, PixelConfig]


def _of_files(inputs: Sequence[Path], site: service.SiteConfig, folder: Path) -> Found:
    for path in inputs:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    paths = fits_files([path / "exposures" if (path / "site.toml").is_file() else path for path in inputs])
    rows = ingest.read_table(folder / site.references, REFERENCE) if site.references else empty(REFERENCE, 0)
    return ([Source(str(path), partial(ingest.read_exposure, path, site.header)) for path in paths],
            lambda exposure: rows, site.given_zeropoint, site.pipeline)


def _of_run(run: Path, band: str) -> Found:
    """The exposures of a run's night, drawn again one by one."""
    from simulators import observe
    from twin.halves import observatory
    from twin.history import references

    here = observatory(run)
    if here.config.camera.product == "raw":
        raise InputError(f"{run}: its exposures are raw, and a template is made of exposures without signature: run it "
                         'with simulation.camera.product="calibrated"')
    sources = [Source(f"visit {visit.visit}, detector {detector}", partial(_drawn, observe.expose, here, visit,
                                                                           detector))
               for visit in here.visits if band in ("", visit.band) for detector in here.config.camera.detectors]
    if not sources:
        raise InputError(f"{run}: no visit in band {band}; there are "
                         f"{', '.join(sorted({v.band for v in here.visits}))}")
    return sources, lambda exposure: references(here, exposure), float("nan"), here.scenario.pipeline


def _drawn(expose: Callable[..., object], here: object, visit: object, detector: int) -> Exposure:
    exposure: Exposure = expose(here.sky, visit, detector, here.seed).exposure  # type: ignore[attr-defined]
    return exposure
