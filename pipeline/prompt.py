"""A night's science on one page: preload, the pixel half, the catalogue half, delivery.

    preload        at nextVisit: what is known of the field
    measure_sources  the pixel half (`pipeline.pixel_half`): exposure to measured, scored sources with their cutouts
    report_sources   the catalogue half: filters, transformation, association, forced photometry, packets, save
    deliver        the outbox to the broker
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.alerts import package
from pipeline.alerts.counted import counted
from pipeline.associate import Associated, associate
from pipeline.batches import Batch, Waiting, batches, beyond
from pipeline.config import PipelineConfig
from pipeline.errors import PipelineError, RetriableError
from pipeline.filter import filter_sources
from pipeline.footprint import PRELOAD_MARGIN_ARCSEC, footprint_box
from pipeline.forced import force, on_detector, select
from pipeline.images import Cutouts
from pipeline.objects import slots, stale_rows, update
from pipeline.pixel_half import Images, Measured, Static, log_row, measure_sources
from pipeline.ports import History, Ports, SaveRequest, Segment
from pipeline.reasons import rejections
from pipeline.retry import read, write
from pipeline.solarsystem import mpc_orbits
from pipeline.steps import Step, Steps
from pipeline.transform import processing_summary, transform
from schemas import table
from schemas.alert import CUTOUT_MAX, CUTOUT_MIN
from schemas.exposure import Box, Visit
from schemas.measures import EPHEMERIS, PUBLICATION, empty
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT


@dataclass(frozen=True, slots=True)
class Known:
    """What preload brings for the catalogues."""

    objects: np.ndarray                # DiaObject
    history: History
    ephemerides: np.ndarray            # EPHEMERIS; empty without the service


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
    n_lost: int = 0                    # alerts that were not acknowledged and are not tried again (write_first)


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
    request = SaveRequest(visit.visit, detector, versions, associated.sources, forced, associated.ss_sources,
                          processing_summary(visit, detector, measured.wcs, measured.shape, measured.log),
                          ports.clock())
    make = partial(_package, measured, associated, filtered.index, versions, known, forced, config)
    how = _write_first if config.publish.order == "write_first" else _through_outbox
    segment, n_lost = yield from how(make, request, ports, config)
    refused = rejections(filtered.sources, associated.reasons, "new_objects", visit.visit, detector, measured.wcs)
    rejected = table.join([measured.rejected, filtered.rejections, refused])
    ports.recorder.append("rejection", rejected)
    return Summary(visit.visit, detector, len(measured.sources), len(associated), associated.n_new, len(segment),
                   rejected, n_lost)


def deliver(ports: Ports, config: PipelineConfig, *, only: tuple[int, int] | None = None) -> Steps[int]:
    """Send the outbox, or the (visit, detector) of it that `only` names; how many packets went out.

    A sink that remembers gets packets and position together, in order, and is asked first what it holds: nothing
    arrives twice, and `only` is the last that is sent of it. For other sinks a segment is marked after it was
    acknowledged: a crash between the two sends it again. Neither loses anything.
    """
    n_sent = 0
    segments = yield from read("unsent", lambda: _waiting(ports, only), config.retry)
    for batch in batches(segments, together=ports.sink.remembers):
        if batch.size:
            yield from write("send", batch.size, _sender(batch, ports), config.retry)
            n_sent += len(batch)
        sent_mjd_tai = ports.clock()
        for segment in batch.finished:
            yield from _mark(segment, ports, config)
            ports.recorder.append("publication", _publications(segment, segment.lengths, sent_mjd_tai))
    return n_sent


def _through_outbox(make: Callable[[], Segment], request: SaveRequest, ports: Ports, config: PipelineConfig
                    ) -> Steps[tuple[Segment, int]]:
    """Packets before the save, which puts them into the outbox; none is lost."""
    segment = make()
    yield Step("package", segment.size, left=segment)
    yield from _save(request, segment, ports, config)
    return segment, 0


def _write_first(make: Callable[[], Segment], request: SaveRequest, ports: Ports, config: PipelineConfig
                 ) -> Steps[tuple[Segment, int]]:
    """The save, then packets, sent once and forgotten, as the real system does; and how many did not arrive."""
    yield from _save(request, Segment(request.visit, request.detector, np.empty(0, np.int64), ()), ports, config)
    segment = make()
    yield Step("package", segment.size, left=segment)
    yield Step("send", segment.size, ahead=True)
    try:
        arrived = ports.sink.send(segment.packets, segment.keys.tolist())
    except PipelineError:
        arrived = 0
    ports.recorder.append("publication", _publications(segment.part(slice(0, arrived)), segment.lengths[:arrived],
                                                       ports.clock()))
    return segment, len(segment) - arrived


def _save(request: SaveRequest, segment: Segment, ports: Ports, config: PipelineConfig) -> Steps[None]:
    yield from write("save", len(request), lambda: ports.store.save(request, segment), config.retry,
                     landed=lambda: ports.store.contains(request.visit, request.detector))


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
    if config.alert.packets == "counted":
        kinds = (measured.difference, measured.science, measured.template)
        return counted(measured.visit, measured.detector, associated.sources, _sides(measured, stamp), versions,
                       known.history, forced, [kind.psf.shape[0] for kind in kinds], config.alert)
    science, template, difference = (_stamps(cutouts, stamp) for cutouts in
                                     (measured.science, measured.template, measured.difference))
    return package(measured.visit, measured.detector, associated.sources, versions, known.history, forced,
                   associated.ss_sources, mpc_orbits(associated.ephemerides), difference=difference, science=science,
                   template=template, wcs=measured.wcs, config=config.alert)


def _sides(measured: Measured, rows: np.ndarray) -> np.ndarray:
    """(n,) sides of stamps that need not be there; 0 where the centroid is off the image."""
    (ny, nx), (x, y, side) = measured.shape, (measured.sources[name][rows] for name in ("x", "y", "bboxSize"))
    inside = (x >= -0.5) & (x < nx - 0.5) & (y >= -0.5) & (y < ny - 0.5)
    return np.where(inside, np.clip(side, CUTOUT_MIN, CUTOUT_MAX), 0)


def _stamps(cutouts: Cutouts, index: np.ndarray) -> Cutouts:
    return Cutouts(tuple(cutouts.image[i] for i in index), tuple(cutouts.variance[i] for i in index), cutouts.psf,
                   tuple(cutouts.mask[i] for i in index) if cutouts.mask else ())


def _waiting(ports: Ports, only: tuple[int, int] | None) -> list[Waiting]:
    """What is to be done for the outbox, with what the sink holds of it already."""
    segments = ports.store.unsent()
    if only is not None:
        chosen = [i for i, segment in enumerate(segments) if (segment.visit, segment.detector) == only]
        segments = (segments[:chosen[-1] + 1] if ports.sink.remembers else [segments[i] for i in chosen]) \
            if chosen else []
    if not segments or not ports.sink.remembers:
        return [Waiting(segment) for segment in segments]
    return beyond(segments, ports.sink.position(segments[0].outbox))


def _sender(batch: Batch, ports: Ports) -> Callable[[], None]:
    """Sends what of a batch has not been acknowledged yet."""
    done = 0

    def send() -> None:
        nonlocal done
        if ports.sink.remembers:                   # another delivery may have sent it since the outbox was read
            done = batch.held(ports.sink.position(batch.outbox))
        rest = batch.part(done)
        if rest.packets:
            done += ports.sink.send(rest.packets, rest.keys, rest.position)
        if done < len(batch):
            raise RetriableError(f"visit {batch.visit}, detector {batch.detector}: {done} of {len(batch)} "
                                 "packets acknowledged")

    return send


def _mark(segment: Segment, ports: Ports, config: PipelineConfig) -> Steps[None]:
    yield from write("mark_sent", 1, lambda: ports.store.mark_sent(segment), config.retry)


def _publications(segment: Segment, lengths: np.ndarray, sent_mjd_tai: float) -> np.ndarray:
    rows = empty(PUBLICATION, len(segment))
    rows["diaSourceId"], rows["visit"], rows["detector"] = segment.ids, segment.visit, segment.detector
    rows["bytes"], rows["sent_mjd_tai"] = lengths, sent_mjd_tai
    return rows


__all__ = ["PRELOAD_MARGIN_ARCSEC", "Images", "Known", "Measured", "Static", "Summary", "deliver", "footprint_box",
           "log_row", "measure_sources", "preload", "report_sources"]
