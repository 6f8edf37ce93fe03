"""Packets per second of one core, on distinct alerts: CPU seconds, so that other work on the machine does not count."""

import io
import time

import fastavro
import lsst.alert.packet
import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.nddata import CCDData, VarianceUncertainty
from astropy.wcs import WCS

from pipeline.alerts import read_packet
from pipeline.alerts.package import _jacobians
from pipeline.config import AlertConfig
from schemas import alert
from twin.packets import drawn

N_ALERTS = 1060                                      # five detectors at the peak rate


@pytest.mark.bench
@pytest.mark.parametrize(("n_sources", "n_forced", "size", "least"),
                         [(12, 12, 125e3, 2000.0), (300, 500, 260e3, 500.0)])
def test_packets_per_second(n_sources, n_forced, size, least, capsys):
    for contents in drawn(4, 2, 2, 1):
        contents.package()                           # what is compiled or read once
    seconds, n_bytes = 0.0, 0
    for contents in drawn(N_ALERTS, n_sources, n_forced, 7):
        start = time.process_time()
        segment = contents.package()
        seconds += time.process_time() - start
        n_bytes += segment.size
        check(contents, segment)
    with capsys.disabled():
        print(f"\n{n_sources} sources, {n_forced} forced: {N_ALERTS / seconds:,.0f} packets/s, "
              f"{n_bytes / seconds / 1e6:,.0f} MB/s, {n_bytes / N_ALERTS / 1e3:.1f} kB each")
    assert n_bytes / N_ALERTS == pytest.approx(size, rel=0.05)
    assert N_ALERTS / seconds > least


@pytest.mark.bench
@pytest.mark.parametrize("schema", ["7.4", "8.0", "10.0"])
def test_packets_per_second_of_older_versions(schema, capsys):
    contents = next(drawn(212, 12, 12, 3))
    config = AlertConfig(schema=schema)
    contents.package(config)
    start = time.process_time()
    segment = contents.package(config)
    seconds = time.process_time() - start
    with capsys.disabled():
        print(f"\nversion {schema}: {len(segment) / seconds:,.0f} packets/s")
    assert read_packet(segment.packets[-1])["diaSource"]["diaSourceId"] == segment.ids[-1]
    assert len(segment) / seconds > 2000.0


def check(contents, segment, every=50):
    """Some packets of a segment are fastavro's bytes, and their cutouts astropy's."""
    schema = lsst.alert.packet.Schema.from_file().definition
    pc = _jacobians(contents.wcs, contents.sources["x"].astype(float), contents.sources["y"].astype(float),
                    contents.sources["dec"])
    for i in range(0, len(segment), every):
        found = fastavro.schemaless_reader(io.BytesIO(segment.packets[i][5:]), schema, None)
        again = io.BytesIO()
        fastavro.schemaless_writer(again, schema, found)
        assert again.getvalue() == segment.packets[i][5:]
        for name, kind in (("cutoutDifference", contents.difference), ("cutoutScience", contents.science),
                           ("cutoutTemplate", contents.template)):
            assert found[name] == by_astropy(kind, i, contents, pc[i])


def by_astropy(kind, i, contents, pc):
    """A cutout as CCDData writes it."""
    row, side = contents.sources[i], kind.image[i].shape[0]
    x_min, y_min = (alert.corner(float(row[name]), side) for name in "xy")
    wcs = WCS(naxis=2)
    wcs.array_shape = kind.image[i].shape
    wcs.wcs.crpix = [float(row["x"]) - x_min + 1, float(row["y"]) - y_min + 1]
    wcs.wcs.crval = [float(row["ra"]), float(row["dec"])]
    wcs.wcs.cd = np.array(pc).reshape(2, 2)
    meta = fits.Header([("CUTMINX", x_min - 1), ("CUTMINY", y_min - 1),
                        ("ROTPA", contents.visit.rotation, "Pos angle in deg of focal plane +Y wrt North")])
    buffer = io.BytesIO()
    CCDData(data=kind.image[i], uncertainty=VarianceUncertainty(kind.variance[i]), wcs=wcs, meta=meta, unit=units.nJy,
            psf=kind.psf).write(buffer, format="fits")
    return buffer.getvalue()


def test_the_check_sees_a_changed_pixel():
    """The control: one pixel more, and astropy's bytes are others."""
    contents = next(drawn(2, 2, 2, 5))
    segment = contents.package()
    check(contents, segment, every=1)
    contents.science.image[1][3, 4] += 1.0
    with pytest.raises(AssertionError):
        check(contents, segment, every=1)
