"""A night's science on one page: preload, the pixel half, the catalogue half, delivery.

    preload        at nextVisit: what is known of the field
    measure_sources  the pixel half: pure, no clock, no port; exposure to measured, scored sources with their cutouts
    report_sources   the catalogue half: filters, transformation, association, forced photometry, packets, save
    deliver        the outbox to the broker
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pipeline.alerts import package
from pipeline.associate import Associated, associate
from pipeline.calibrate import calibrate
from pipeline.config import PipelineConfig
from pipeline.cutouts import cut
from pipeline.detect import detect
from pipeline.difference import subtract
from pipeline.errors import NoWorkFound, PipelineError, RetriableError
from pipeline.filter import filter_sources, rejections
from pipeline.forced import force, on_detector, select
from pipeline.images import Calibrated, Calibration, Cutouts, Detections, Difference, Template
from pipeline.inject import inject
from pipeline.measure import measure, quality_cut
from pipeline.objects import slots, stale_rows, update
from pipeline.pixels import PixelsInMemory
from pipeline.ports import History, Pixels, Ports, SaveRequest, Segment
from pipeline.psf import Psf
from pipeline.reliability import VERSION, score
from pipeline.solarsystem import mpc_orbits
from pipeline.steps import Step, Steps, read, write
from pipeline.template import warp
from pipeline.transform import processing_summary, transform
from schemas import mask, table
from schemas.exposure import Box, Exposure, Visit, magnitudes
from schemas.measures import EPHEMERIS, EXPOSURE_LOG, PUBLICATION, REJECTION, empty
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT
from schemas.wcs import Wcs

PRELOAD_MARGIN_ARCSEC = 50.1   # padding of the predicted footprint in production (phalanx, prompt-keda-lsstcam)


@dataclass(frozen=True, slots=True)
class Static:
    """What preload brings for the pixels; frozen for a run."""

    template: Template | None          # on its own grid; None where none exists: no work
    references: np.ndarray             # REFERENCE; empty: WCS and zeropoint are taken as given
    injections: np.ndarray | None = None   # INJECTION rows to add after calibration
    given_zeropoint: float = 31.4      # where there are no references


@dataclass(frozen=True, slots=True)
class Known:
    """What preload brings for the catalogues."""

    objects: np.ndarray                # DiaObject
    history: History
    ephemerides: np.ndarray            # EPHEMERIS; empty without the service


@dataclass(frozen=True, slots=True)
class Images:
    """The planes that the pixel half worked on, for who wants to look: the twin's inspection, `--keep images`."""

    science: Calibrated
    template: Template                 # on the science grid, before matching
    difference: Difference             # with every mask plane that detection sets
    significance: np.ndarray           # (ny, nx) float32: matched-filter S/N


@dataclass(frozen=True, slots=True)
class Measured:
    """What the pixel half yields."""

    visit: Visit
    detector: int
    sources: np.ndarray                # MEASUREMENT, scored, unfiltered
    wcs: Wcs
    shape: tuple[int, int]
    box: Box                           # the detector on the sky
    calibration: Calibration
    science: Cutouts                   # one stamp per source, of side bboxSize clamped to 30..102
    template: Cutouts
    difference: Cutouts
    pixels: Pixels                     # kept for forced photometry
    log: np.ndarray                    # EXPOSURE_LOG, one row: what the pixel half knows of it
    images: Images | None = None       # let go before the catalogue half, which has `pixels`
    rejected: np.ndarray = field(default_factory=lambda: empty(REJECTION))   # by the pixel half's own cuts
    reliability_version: str = ""      # of the model that scored the sources


@dataclass(frozen=True, slots=True)
class Summary:
    """The outcome of one detector-visit."""

    visit: int
    detector: int
    n_detected: int
    n_sources: int
    n_new_objects: int
    n_alerts: int
    rejections: np.ndarray             # REJECTION


def measure_sources(exposure: Exposure, static: Static, config: PipelineConfig, *,
                    rng: np.random.Generator | None = None) -> Steps[Measured]:
    """The pixel half: from one detector's exposure to measured and scored sources with their cutouts.

    `rng` is asked only for the photon noise of injected sources. NoWorkFound without a template that overlaps;
    AlgorithmError where the data defeat a stage.
    """
    n_pixels = exposure.image.size
    if static.template is None:
        raise NoWorkFound(f"visit {exposure.visit.visit}: no template in band {exposure.visit.band}")
    science = calibrate(exposure, static.references, config.calibrate, given_zeropoint=static.given_zeropoint)
    yield Step("calibrate", n_pixels, left=science)
    if static.injections is not None and len(static.injections):
        science = inject(science, static.injections, rng)
        yield Step("inject", len(static.injections), left=science)
    template = warp(static.template, science.wcs, science.shape, config.template)
    yield Step("warp", n_pixels, left=template)
    if not np.any((template.mask & mask.NO_DATA) == 0):
        raise NoWorkFound(f"visit {exposure.visit.visit}: the template does not overlap the exposure")
    difference = subtract(science, template, config.difference)
    yield Step("subtract", n_pixels, left=difference)
    detections = detect(difference, science, config.detect)
    yield Step("detect", n_pixels, left=detections)
    difference = detections.difference
    measured = measure(detections, science, template, config.measure)
    kept, reasons = quality_cut(measured)
    sources = table.take(measured, np.flatnonzero(kept))
    rejected = rejections(measured, reasons, "measure", exposure.visit.visit, exposure.detector, science.wcs)
    yield Step("measure", len(measured), left=sources)
    stamps = (cut(science.image, science.variance, science.psf, sources),
              cut(template.image, template.variance, template.psf, sources),   # warped, not matched, as deployed
              cut(difference.image, difference.variance, difference.psf, sources))
    yield Step("cutouts", len(sources), left=stamps)
    sources = sources.copy()
    sources["reliability"] = score(sources, *stamps, config.reliability)
    yield Step("reliability", len(sources), left=sources)
    return Measured(
        visit=exposure.visit, detector=exposure.detector, sources=sources, wcs=science.wcs, shape=science.shape,
        box=footprint_box(science.wcs, science.shape), calibration=science.calibration, science=stamps[0],
        template=stamps[1], difference=stamps[2], pixels=PixelsInMemory(difference, science, science.wcs),
        log=_log(exposure, science, template, detections, len(sources)), rejected=rejected,
        images=Images(science, template, difference, detections.significance), reliability_version=VERSION)


def footprint_box(wcs: Wcs, shape: tuple[int, int], margin_arcsec: float = 0.0) -> Box:
    """The box on the sky around a detector's border."""
    edge = np.linspace(-0.5, 0.5, 9)
    x, y = np.meshgrid(edge * shape[1] + (shape[1] - 1) / 2, edge * shape[0] + (shape[0] - 1) / 2)
    ra, dec = wcs.sky(x, y)
    return Box.around(ra.ravel(), dec.ravel(), margin_arcsec)


def log_row(exposure: Exposure) -> np.ndarray:
    """EXPOSURE_LOG, one row: what is known of an exposure before anything is computed."""
    visit, row = exposure.visit, empty(EXPOSURE_LOG, 1)
    facts = {"visit": visit.visit, "detector": exposure.detector, "band": visit.band.encode(), "ra": visit.ra,
             "midpointMjdTai": visit.mjd_tai, "exposure_s": visit.exposure_s, "nx": exposure.shape[1],
             "ny": exposure.shape[0], "dec": visit.dec, "airmass": visit.airmass, "fidelity": b"pixels",
             "shutter_close_mjd_tai": visit.shutter_close_mjd_tai}
    for name, value in facts.items():
        row[name] = value
    return row


def _log(exposure: Exposure, science: Calibrated, template: Template, detections: Detections,
         n_detected: int) -> np.ndarray:
    """The EXPOSURE_LOG row as far as the pixel half knows it."""
    row, found, difference = log_row(exposure), science.calibration, detections.difference
    scale = science.wcs.scale_arcsec
    covered = (template.mask & mask.NO_DATA) == 0
    usable = (difference.mask & (mask.UNUSABLE | mask.STREAK | mask.CR)) == 0
    facts = {"n_detected": n_detected, "usable_px": int(usable.sum()),
             "fwhm_arcsec": science.psf.fwhm(scale), "psf_sigma_px": science.psf.sigma, "zeropoint": found.zeropoint,
             "sky_adu": found.sky_adu, "sky_noise_adu": found.sky_noise_adu,
             "mag_lim": _five_sigma(science.variance, science.psf, science.mask),
             "astrom_offset_mean": found.astrom_offset_mean, "astrom_offset_std": found.astrom_offset_std,
             "n_psf_star": found.n_psf_star, "n_kernel_star": difference.n_kernel_stars,
             "noise_correlation": difference.lag1, "snr_rms": detections.snr_rms,
             "template_fwhm_arcsec": template.psf.fwhm(template.wcs.scale_arcsec),
             "template_coverage": float(covered.mean()),
             "diffim_mag_lim": _five_sigma(difference.variance, difference.psf, difference.mask)}
    for name, value in facts.items():
        row[name] = value
    return row


def _five_sigma(variance: np.ndarray, psf: Psf, bits: np.ndarray) -> float:
    """AB magnitude of a point source of S/N 5 on a typical pixel."""
    good = (bits & mask.UNUSABLE) == 0
    if not good.any():
        return float("nan")
    return float(magnitudes(5.0 * np.sqrt(float(np.median(variance[good])) * psf.effective_area)))


def preload(visit: Visit, detector: int, box: Box, ports: Ports, config: PipelineConfig) -> Steps[Known]:
    """What is known around a detector before its exposure: objects, their history, ephemerides.

    `box` is the predicted footprint. Without the ephemeris service the table is empty, never a stop.
    """
    padded = box.padded(config.preload.margin_arcsec)
    objects = yield from read("objects", lambda: ports.store.objects(padded), config.retry)
    since = visit.mjd_tai - config.alert.history_days
    history = yield from read("history", lambda: ports.store.history(objects["diaObjectId"], since, visit.mjd_tai),
                              config.retry)
    try:
        ephemerides = yield from read("ephemerides", lambda: ports.ephemerides.near(padded, visit.mjd_tai),
                                      config.retry)
    except PipelineError:
        ephemerides = empty(EPHEMERIS)
    return Known(objects, history, ephemerides)


def report_sources(measured: Measured, known: Known, ports: Ports, config: PipelineConfig) -> Steps[Summary]:
    """The catalogue half: from measured sources to saved tables and packets in the outbox.

    Nothing outside changes before the one save at the end; whatever stops it earlier leaves no trace.
    """
    visit, detector = measured.visit, measured.detector
    filtered = yield from filter_sources(measured.sources, visit, detector, measured.wcs, ports.satellites,
                                         config.filter)
    sources = transform(filtered.sources, measured.wcs, visit, detector, ports.clock(),
                        reliability_version=measured.reliability_version)
    yield Step("transform", len(sources), left=sources)
    objects = (yield from _reload(measured.box, known, ports, config)) if config.associate.reload else known.objects
    associated = associate(sources, objects, known.ephemerides, visit.mjd_tai, config.associate, config.filter)
    yield Step("associate", len(sources), left=associated)
    versions = _versions(associated, objects, known, ports.clock(), config)
    yield Step("statistics", len(versions), left=versions)
    forced = _forced(measured, associated, versions, objects, known, ports.clock(), config)
    yield Step("forced", len(forced), left=forced)
    segment = _package(measured, associated, filtered.index, versions, known, forced, config)
    yield Step("package", segment.size, left=segment)
    request = SaveRequest(visit.visit, detector, versions, associated.sources, forced, associated.ss_sources,
                          processing_summary(visit, detector, measured.wcs, measured.shape, measured.log))
    yield from write("save", len(request), lambda: ports.store.save(request, segment), config.retry,
                     landed=lambda: ports.store.contains(visit.visit, detector))
    refused = rejections(filtered.sources, associated.reasons, "new_objects", visit.visit, detector, measured.wcs)
    rejected = np.concatenate([measured.rejected, filtered.rejections, refused])
    ports.recorder.append("rejection", rejected)
    return Summary(visit.visit, detector, len(measured.sources), len(associated), associated.n_new, len(segment),
                   rejected)


def deliver(ports: Ports, config: PipelineConfig, *, only: tuple[int, int] | None = None) -> Steps[int]:
    """Send the outbox, or the (visit, detector) of it that `only` names; how many packets went out.

    A segment is marked after it was acknowledged: a crash between the two sends it again, never loses it.
    """
    n_sent = 0
    segments = yield from read("unsent", ports.store.unsent, config.retry)
    for segment in segments:
        if only is not None and (segment.visit, segment.detector) != only:
            continue
        if len(segment):
            yield from write("send", segment.size, _sender(segment, ports), config.retry)
        sent_mjd_tai = ports.clock()
        yield from _mark(segment, ports, config)
        ports.recorder.append("publication", _publications(segment, sent_mjd_tai))
        n_sent += len(segment)
    return n_sent


def _reload(box: Box, known: Known, ports: Ports, config: PipelineConfig) -> Steps[np.ndarray]:
    """DIAObjects as they are now; those of preload where the read fails, as deployed."""
    padded = box.padded(config.associate.reload_margin_arcsec)
    try:
        return (yield from read("reload", lambda: ports.store.objects(padded), config.retry))
    except RetriableError:
        return known.objects


def _versions(associated: Associated, objects: np.ndarray, known: Known, now_mjd_tai: float,
              config: PipelineConfig) -> np.ndarray:
    """New versions of the objects of this visit's sources."""
    owned = np.flatnonzero(associated.sources["diaObjectId"] != 0)
    row = associated.object_row[owned]
    previous = DIA_OBJECT.empty(len(owned))
    previous["diaObjectId"] = 0
    if len(objects):
        blank = table.join([objects, DIA_OBJECT.empty(1)])
        blank["diaObjectId"][-1] = 0
        previous = table.take(blank, row)
    stale = stale_rows(previous, known.objects)
    return update(table.take(associated.sources, owned), previous, known.history.sources, stale, now_mjd_tai,
                  config.objects)


def _forced(measured: Measured, associated: Associated, versions: np.ndarray, objects: np.ndarray, known: Known,
            now_mjd_tai: float, config: PipelineConfig) -> np.ndarray:
    """Forced photometry of this visit's objects and of those that it did not detect."""
    if not config.forced.enabled:
        return DIA_FORCED_SOURCE.empty(0)
    others = np.flatnonzero((slots(objects["diaObjectId"], versions["diaObjectId"]) < 0)
                            & on_detector(objects, measured.wcs, measured.shape))
    present = table.join([versions, table.take(objects, others)])
    chosen = select(present, table.join([known.history.sources, associated.sources]), config.forced)
    return force(measured.pixels, table.take(present, chosen), measured.visit, measured.detector, now_mjd_tai)


def _package(measured: Measured, associated: Associated, index: np.ndarray, versions: np.ndarray, known: Known,
             forced: np.ndarray, config: PipelineConfig) -> Segment:
    """The packets, made before the save; none where alerts are off."""
    if not config.alert.produce:
        return Segment(measured.visit.visit, measured.detector, np.empty(0, np.int64), ())
    stamp = index[associated.index]
    science, template, difference = (_stamps(cutouts, stamp) for cutouts in
                                     (measured.science, measured.template, measured.difference))
    return package(measured.visit, measured.detector, associated.sources, versions, known.history, forced,
                   associated.ss_sources, mpc_orbits(associated.ephemerides), difference=difference, science=science,
                   template=template, wcs=measured.wcs, config=config.alert)


def _stamps(cutouts: Cutouts, index: np.ndarray) -> Cutouts:
    return Cutouts(tuple(cutouts.image[i] for i in index), tuple(cutouts.variance[i] for i in index), cutouts.psf)


def _sender(segment: Segment, ports: Ports) -> Callable[[], None]:
    """Sends what of a segment has not been acknowledged yet."""
    done = 0

    def send() -> None:
        nonlocal done
        done += ports.sink.send(segment.packets[done:])
        if done < len(segment):
            raise RetriableError(f"visit {segment.visit}, detector {segment.detector}: {done} of {len(segment)} "
                                 "packets acknowledged")

    return send


def _mark(segment: Segment, ports: Ports, config: PipelineConfig) -> Steps[None]:
    yield from write("mark_sent", 1, lambda: ports.store.mark_sent(segment), config.retry)


def _publications(segment: Segment, sent_mjd_tai: float) -> np.ndarray:
    rows = empty(PUBLICATION, len(segment))
    rows["diaSourceId"], rows["visit"], rows["detector"] = segment.ids, segment.visit, segment.detector
    rows["bytes"], rows["sent_mjd_tai"] = list(map(len, segment.packets)), sent_mjd_tai
    return rows
