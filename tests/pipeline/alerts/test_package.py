import io
from dataclasses import replace

import fastavro
import lsst.alert.packet
import numpy as np
import pytest

from pipeline.alerts import read_cutout, read_packet
from pipeline.alerts.check import psf_flux
from pipeline.alerts.package import LEFT_NULL
from pipeline.config import AlertConfig
from pipeline.cutouts import cut
from pipeline.images import Cutouts
from pipeline.ports import History
from pipeline.psf import Psf
from schemas.measures import MEASUREMENT, empty
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, SS_SOURCE, join, take
from tests.pipeline.alerts.makers import SIGMA, VISIT, WCS, full, gaussian_cutouts, make, objects_for, past, triggers
from tests.strategies import random_rows


def test_packets_are_fastavros_bytes_and_validate():
    sources, segment = full()
    assert segment.ids.tolist() == sources["diaSourceId"].tolist()
    assert segment.size == sum(map(len, segment.packets))
    shipped = lsst.alert.packet.Schema.from_file()
    for packet in segment.packets:
        assert packet[:5] == b"\x00\x00\x00\x04\x4d"
        found = shipped.deserialize(packet[5:])
        assert shipped.validate(found)
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, shipped.definition, found)
        assert buffer.getvalue() == packet[5:]


def test_every_value_of_a_row_arrives():
    sources, segment = full(config=AlertConfig(fields="all"))
    for row, packet in zip(sources, segment.packets, strict=True):
        found = read_packet(packet)
        assert found["diaSourceId"] == row["diaSourceId"]
        for column in DIA_SOURCE.columns:
            value, expected = found["diaSource"].get(column.name), row[column.name]
            if not column.in_alerts:
                assert column.name not in found["diaSource"]
            elif value is None:
                assert np.isnan(expected) if column.datatype in ("float", "double") else expected == column.null
            else:
                assert value == (expected.decode() if column.is_text else expected.item())


def test_what_public_alerts_leave_null_is_null_unless_all_fields_are_wanted():
    """Deployed: the fields of LEFT_NULL; the others are as with all."""
    _, deployed = full()
    _, whole = full(config=AlertConfig(fields="all"))
    some = {name: set() for name in LEFT_NULL}
    for ours, theirs in zip(deployed.packets, whole.packets, strict=True):
        for key, table in (("diaSource", "DiaSource"), ("diaObject", "DiaObject"), ("ssSource", "SSSource")):
            one, other = read_packet(ours)[key] or {}, read_packet(theirs)[key] or {}
            assert {name: value for name, value in other.items() if name not in LEFT_NULL[table]} \
                == {name: value for name, value in one.items() if name not in LEFT_NULL[table]}
            assert all(one[name] is None for name in LEFT_NULL[table] if one)
            some[table] |= {name for name in LEFT_NULL[table] if other.get(name) is not None}
    assert some == LEFT_NULL        # the control: with all fields each of them has a value somewhere


def test_the_visit_says_why_and_where():
    source = triggers(1, np.random.default_rng(0))
    found = read_packet(make(source).packets[0])
    assert (found["observation_reason"], found["target_name"]) == ("simulated survey", "first light")
    nameless = read_packet(make(source, visit=replace(VISIT, observation_reason="", target_name="")).packets[0])
    assert (nameless["observation_reason"], nameless["target_name"]) == (None, None)


def test_history_is_the_objects_own_in_time_order_without_the_trigger():
    sources, segment = full()
    for row, packet in zip(sources[:-2], segment.packets, strict=False):
        found = read_packet(packet)
        times = [earlier["midpointMjdTai"] for earlier in found["prvDiaSources"]]
        assert times == sorted(times)
        assert len(times) == 7
        assert {earlier["diaObjectId"] for earlier in found["prvDiaSources"]} == {row["diaObjectId"]}
        assert row["diaSourceId"] not in {earlier["diaSourceId"] for earlier in found["prvDiaSources"]}
        assert found["diaObject"]["diaObjectId"] == row["diaObjectId"]
        forced = [point["midpointMjdTai"] for point in found["prvDiaForcedSources"]]
        assert forced == sorted(forced)
        assert len(forced) == 8
        assert forced[-1] == VISIT.mjd_tai          # this visit's own point closes it


def test_history_leaves_out_the_trigger_the_future_and_what_is_too_old():
    sources = triggers(1, np.random.default_rng(0))
    owner = sources["diaObjectId"][0]
    now = VISIT.mjd_tai
    rows = past(DIA_SOURCE, [owner] * 5, [now - 361, now - 359, now + 1, now - 30, now], np.random.default_rng(1))
    rows = join([rows, sources])
    def history_in(config):
        segment = make(sources, objects_for(sources, 5), History(rows, DIA_FORCED_SOURCE.empty()), config=config)
        return [row["midpointMjdTai"] - now for row in read_packet(segment.packets[0])["prvDiaSources"]]
    assert history_in(AlertConfig()) == pytest.approx([-359, -30, 0])
    assert history_in(AlertConfig(history_days=365.25)) == pytest.approx([-361, -359, -30, 0])


def test_a_first_detection_has_no_previous_sources_and_no_forced_points():
    """As in public alerts: null and an empty list."""
    found = read_packet(make(triggers(1, np.random.default_rng(0))).packets[0])
    assert found["prvDiaSources"] is None
    assert found["prvDiaForcedSources"] == []
    assert found["diaObject"]["nDiaSources"] == 1
    assert found["ssSource"] is None


def test_a_solar_system_alert_has_its_orbit_and_no_history():
    sources, segment = full()
    for row, packet, name in zip(sources[-2:], segment.packets[-2:], ("2026 CD", "2026 AB"), strict=True):
        found = read_packet(packet)
        assert found["ssSource"]["diaSourceId"] == row["diaSourceId"]
        assert found["ssSource"]["designation"] == found["mpc_orbits"]["designation"] == name
        assert [found[key] for key in ("diaObject", "prvDiaSources", "prvDiaForcedSources")] == [None] * 3
        assert found["diaSource"]["diaObjectId"] == 0
        assert found["diaSource"]["ssObjectId"] == row["ssObjectId"]


def test_a_packets_key_is_the_object_it_is_about():
    sources, segment = full()
    assert segment.keys.tolist() == [*sources["diaObjectId"][:-2].tolist(), 77, 78]


def test_a_solar_system_object_without_an_orbit_has_a_null_there():
    sources = triggers(1, np.random.default_rng(0))
    sources["ssObjectId"], sources["diaObjectId"] = 7, 0
    ss = random_rows(SS_SOURCE, 1, np.random.default_rng(0))
    ss["diaSourceId"] = sources["diaSourceId"]
    found = read_packet(make(sources, objects=DIA_OBJECT.empty(), ss=ss).packets[0])
    assert found["ssSource"]["diaSourceId"] == sources["diaSourceId"][0]
    assert found["mpc_orbits"] is None


def rows_of(table, records):
    columns = {name: [record.get(name) for record in records] for name in table.dtype.names}
    for column in table.columns:
        if not column.nullable or column.datatype == "boolean":
            columns[column.name] = [0 if value is None else value for value in columns[column.name]]
    return table.from_columns(columns)


def test_nulls_of_public_alerts_are_written_again_as_they_were(shared_data):
    """Rows of v10 alerts, taken into tables and packaged as v11.1, keep every value and every null."""
    checked = 0
    for path in sorted((shared_data / "rubin_alerts").glob("1*.bin")):
        real = read_packet(path.read_bytes())
        if real["diaObject"] is None:
            continue
        source, owner = rows_of(DIA_SOURCE, [real["diaSource"]]), rows_of(DIA_OBJECT, [real["diaObject"]])
        history = History(rows_of(DIA_SOURCE, real["prvDiaSources"]),
                          rows_of(DIA_FORCED_SOURCE, real["prvDiaForcedSources"]))
        visit = replace(VISIT, visit=int(source["visit"][0]), mjd_tai=float(source["midpointMjdTai"][0]))
        again = read_packet(make(source, owner, history, visit=visit).packets[0])
        for key in ("diaSource", "diaObject"):
            assert {name: again[key][name] for name in real[key]} == real[key]
        assert again["prvDiaForcedSources"] == real["prvDiaForcedSources"]
        for ours, theirs in zip(again["prvDiaSources"], real["prvDiaSources"], strict=True):
            assert {name: ours[name] for name in theirs} == theirs
        checked += 1
    assert checked == 5


def test_flux_measured_on_our_own_cutouts_is_psfflux():
    rng = np.random.default_rng(11)
    sources = triggers(40, rng, flux=3000.0)
    stamps = gaussian_cutouts(sources, rng)
    pulls = []
    for packet, row in zip(make(sources, stamps=stamps).packets, sources, strict=True):
        stamp = read_cutout(read_packet(packet)["cutoutDifference"])
        found = psf_flux(stamp)
        pulls.append((found.flux - 3000.0) / found.error)
        assert abs(found.flux / 3000.0 - 1) < 0.5
        assert stamp.header["CUTMINX"] + stamp.header["CRPIX1"] == pytest.approx(row["x"])
    assert abs(np.mean(pulls)) < 4 / np.sqrt(40)
    assert abs(np.std(pulls) - 1) < 4 / np.sqrt(80)


def test_a_cutouts_linear_wcs_agrees_with_the_images():
    sources = triggers(5, np.random.default_rng(0))
    for packet, row in zip(make(sources).packets, sources, strict=True):
        h = read_cutout(read_packet(packet)["cutoutScience"]).header
        assert "CTYPE1" not in h
        assert (h["BUNIT"], h["ROTPA"]) == ("nJy", 41.6)
        dx, dy = 9.0, -7.0
        east = h["PC1_1"] * dx + h["PC1_2"] * dy
        north = h["PC2_1"] * dx + h["PC2_2"] * dy
        ra, dec = WCS.sky(row["x"] + dx, row["y"] + dy)
        assert (ra - h["CRVAL1"]) * np.cos(np.radians(row["dec"])) == pytest.approx(east, abs=0.002 / 3600)
        assert dec - h["CRVAL2"] == pytest.approx(north, abs=0.002 / 3600)


def test_the_papers_cutouts_have_mask_and_projection_and_the_deployed_ones_neither():
    sources = triggers(2, np.random.default_rng(0))
    stamps = gaussian_cutouts(sources, np.random.default_rng(1))
    stamps = replace(stamps, mask=tuple(np.full((30, 30), 7 + i, np.int32) for i in range(2)))
    for choice in ("deployed", "paper"):
        packet = make(sources, stamps=stamps, config=AlertConfig(cutouts=choice)).packets[1]
        stamp = read_cutout(read_packet(packet)["cutoutTemplate"])
        assert ("CTYPE1" in stamp.header) == (choice == "paper")
        assert (stamp.mask is not None) == (choice == "paper")
        if stamp.mask is not None:
            assert (stamp.mask == 8).all()
    with pytest.raises(ValueError, match=r"alert\.cutouts must be deployed or paper, got 'none'"):
        make(sources, stamps=stamps, config=AlertConfig(cutouts="none"))


def test_cut_and_package_agree_where_a_source_is():
    """Stamps of the pipeline's own `cut`: a source off the middle of its pixel is where the header says."""
    rng = np.random.default_rng(9)
    sources = triggers(30, rng, flux=50_000.0)
    k = np.arange(21) - 10
    psf = np.exp(-(k[:, None]**2 + k**2) / (2 * SIGMA**2))
    measured = empty(MEASUREMENT, 30)
    image = rng.normal(0, 20.0, (1000, 1000))
    yy, xx = np.mgrid[:1000, :1000]
    for row, found in zip(sources, measured, strict=True):
        found["x"], found["y"], found["bboxSize"] = row["x"], row["y"], rng.integers(20, 60)
        box = np.s_[int(row["y"]) - 20:int(row["y"]) + 21, int(row["x"]) - 20:int(row["x"]) + 21]
        image[box] += 50_000 * np.exp(-((xx[box] - row["x"])**2 + (yy[box] - row["y"])**2) / (2 * SIGMA**2)) \
            / (2 * np.pi * SIGMA**2)
    stamps = cut(image.astype(np.float32), np.full((1000, 1000), 400.0, np.float32), Psf.constant(psf, (1000, 1000)),
                 measured)
    for packet in make(sources, stamps=stamps).packets:
        stamp = read_cutout(read_packet(packet)["cutoutDifference"])
        found = psf_flux(stamp, max_shift=1.0)
        assert (found.dx, found.dy) == (0.0, 0.0)


def test_a_stamp_without_pixels_is_null():
    sources = triggers(2, np.random.default_rng(0))
    stamps = gaussian_cutouts(sources, np.random.default_rng(1))
    gone = np.zeros((0, 0), np.float32)
    stamps = Cutouts((gone, stamps.image[1]), (gone, stamps.variance[1]), stamps.psf)
    first, second = (read_packet(packet) for packet in make(sources, stamps=stamps).packets)
    assert [first[f"cutout{kind}"] for kind in ("Difference", "Science", "Template")] == [None] * 3
    assert all(second[f"cutout{kind}"] for kind in ("Difference", "Science", "Template"))


def test_sizes_are_those_of_public_alerts():
    """34,560 bytes for a 30 px cutout with a 41 px PSF; with no history about 105 kB in all."""
    packet = make(triggers(1, np.random.default_rng(0))).packets[0]
    assert len(read_packet(packet)["cutoutDifference"]) == 34_560
    assert 103_700 < len(packet) < 106_000


def test_no_sources_make_no_packets():
    segment = make(DIA_SOURCE.empty(), objects=DIA_OBJECT.empty(), stamps=Cutouts((), (), np.ones((41, 41))))
    assert len(segment) == 0
    assert segment.ids.dtype == np.int64


def test_what_is_missing_is_named():
    sources = triggers(2, np.random.default_rng(0))
    with pytest.raises(ValueError, match="no DiaObject for 1000"):
        make(sources, objects=take(objects_for(sources, 1), np.array([0])))
    with pytest.raises(ValueError, match="2 sources, 1 cutouts"):
        make(sources, stamps=gaussian_cutouts(sources[:1], np.random.default_rng(1)))
    lost = sources.copy()
    lost["ssObjectId"] = 5
    with pytest.raises(ValueError, match=f"no SSSource for {lost['diaSourceId'][0]}"):
        make(lost, objects=DIA_OBJECT.empty())


def test_packaging_changes_nothing_it_was_given():
    sources = triggers(3, np.random.default_rng(0))
    before = sources.tobytes()
    assert make(sources).packets == make(sources).packets
    assert sources.tobytes() == before


@pytest.mark.bench
def test_packaging_with_forty_earlier_sources(benchmark):
    rng = np.random.default_rng(0)
    sources = triggers(200, rng)
    owners = np.repeat(sources["diaObjectId"], 40)
    history = History(past(DIA_SOURCE, owners, VISIT.mjd_tai - rng.uniform(1, 300, len(owners)), rng),
                      past(DIA_FORCED_SOURCE, owners, VISIT.mjd_tai - rng.uniform(1, 300, len(owners)), rng))
    stamps = gaussian_cutouts(sources, rng)
    segment = benchmark(lambda: make(sources, objects_for(sources, 41), history, stamps=stamps))
    assert len(read_packet(segment.packets[7])["prvDiaSources"]) == 40
