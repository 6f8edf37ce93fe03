"""Which fields our alerts fill and which public alerts do, record by record."""

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from astropy.io import fits

from pipeline.alerts import read_packet, read_packets
from pipeline.alerts.contents import CUTOUTS, Filled, filled, is_filled, problems
from schemas.exposure import BANDS
from twin.night import run_night
from twin.scenario import Scenario

from .conftest import SMALL

Filling = dict[tuple[str, str], Filled]

NEW_IN_11_1 = {("diaSource", name) for name in ("exposureTime", "trailAlgorithm", "trail_flag", "reliabilityVersion")}

# Fields of which all public v10 alerts have a value, and ours not always; why.
SOMETIMES = {
    ("alert", "prvDiaSources"): "null in first detections, as in the v9 alert; the others are of much-observed objects",
    ("diaSource", "trailAngle"): "the deployed moments give a direction to every source; our fit has none for a point",
    ("diaObject", "several_psfFluxMaxSlope"): "unknown between visits that did not see each other's source",
    ("diaSource", "ixx"): "no moments where a source has no light of one sign about its centroid: dipoles, edges",
    ("diaSource", "iyy"): "as ixx",
    ("diaSource", "ixy"): "as ixx",
    ("diaSource", "extendedness"): "follows from the moments",
}


def by_band(alert: Mapping[str, Any]) -> Mapping[str, Any]:
    """The alert with its object's columns per band under the number of data that the band has: no, one or several."""
    owner = alert["diaObject"]
    if owner is None:
        return alert
    words = {band: "no" if not owner[f"{band}_psfFluxNdata"] else
             "one" if owner[f"{band}_psfFluxNdata"] == 1 else "several" for band in BANDS}
    plain = {name: value for name, value in owner.items() if name[:1] not in BANDS or name[1:2] != "_"}
    for name, value in owner.items():
        if name not in plain:
            key = f"{words[name[0]]}{name[1:]}"
            plain[key] = value if is_filled(value) else plain.get(key)
    return {**alert, "diaObject": plain}


def filling(alerts: Iterable[Mapping[str, Any]]) -> Filling:
    """Of alerts; what an alert itself holds is counted apart for Solar System objects."""
    kinds: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for alert in alerts:
        kinds["solar " if alert["ssSource"] is not None else ""].append(by_band(alert))
    out: Filling = {}
    for kind, several in kinds.items():
        for (record, field), count in filled(several).items():
            key = (kind + record if record == "alert" else record, field)
            known = out.get(key, Filled(0, 0))
            out[key] = Filled(known.n + count.n, known.of + count.of)
    return out


def missing(theirs: Filling, ours: Filling) -> set[tuple[str, str]]:
    """Fields that they always fill and we never."""
    return {key for key, count in theirs.items() if count.always and ours.get(key, Filled(0, 1)).never}


def invented(theirs: Filling, ours: Filling) -> set[tuple[str, str]]:
    """Fields that they never fill and we do, once or more."""
    return {key for key, count in ours.items() if not count.never and key in theirs and theirs[key].never}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The alerts of a small night with minor planets and objects seen several times."""
    folder = tmp_path_factory.mktemp("fields") / "run"
    simulation: Any = SMALL["simulation"]
    sky = {**simulation["sky"], "asteroids": {"belt_per_field": 12.0}}
    cadence = {**simulation["cadence"], "pairs": 2}
    changed = {**SMALL, "simulation": {**simulation, "sky": sky, "cadence": cadence}}
    run_night(msgspec.convert(changed, Scenario), folder)
    return list(read_packets(folder / "alerts"))


@pytest.fixture(scope="module")
def real(shared_data: Path) -> list[bytes]:
    packets = [path.read_bytes() for path in sorted((shared_data / "rubin_alerts").glob("*.bin"))]
    assert len(packets) == 8
    return packets


def test_the_night_has_alerts_of_both_kinds_with_histories(ours: list[bytes]) -> None:
    alerts = [read_packet(packet) for packet in ours]
    assert sum(alert["ssSource"] is not None for alert in alerts) >= 2
    assert sum(bool(alert["prvDiaSources"]) for alert in alerts) >= 10
    assert sum(bool(alert["prvDiaForcedSources"]) for alert in alerts) >= 5
    assert [found for packet in ours for found in problems(packet)] == []


def test_what_public_alerts_fill_is_filled_and_what_they_leave_null_is(ours: list[bytes], real: list[bytes]) -> None:
    mine, theirs = (filling(map(read_packet, packets)) for packets in (ours, real))
    assert missing(theirs, mine) == set()
    assert invented(theirs, mine) == set()
    assert {key for key in NEW_IN_11_1 if not mine[key].always} == set()
    assert {key for key in mine if key not in theirs and key[0] == "diaSource"} == NEW_IN_11_1


def test_the_cameras_own_alerts_are_as_full_but_for_what_is_explained(ours: list[bytes], real: list[bytes]) -> None:
    """Stricter: the seven of LSSTCam alone, without the one of simulated pixels, and `always` on our side as well."""
    theirs = filling(alert for alert in map(read_packet, real) if "MPCORB" not in alert)
    mine = filling(map(read_packet, ours))
    assert missing(theirs, mine) == set()
    assert invented(theirs, mine) == set()
    partly = {key for key, count in theirs.items() if count.always and not mine[key].always}
    assert partly <= set(SOMETIMES), {key: mine[key] for key in partly - set(SOMETIMES)}


def cards(content: bytes) -> list[list[tuple[str, str]]]:
    """Keywords and comments of every HDU of a cutout, in order."""
    with fits.open(io.BytesIO(content)) as units:
        return [[(card.keyword, card.comment) for card in unit.header.cards] for unit in units]


def test_cutouts_have_the_header_cards_of_public_ones_in_their_order(ours: list[bytes], real: list[bytes]) -> None:
    """The v9 alert alone has no ROTPA."""
    seen = set()
    for packet in real:
        alert = read_packet(packet)
        for name in CUTOUTS:
            found = cards(alert[name])
            if "MPCORB" in alert:
                found[0].insert(8, ("ROTPA", "Pos angle in deg of focal plane +Y wrt North"))
            seen.add(str(found))
    assert len(seen) == 1
    assert {str(cards(read_packet(packet)[name])) for packet in ours for name in CUTOUTS} == seen


def test_a_field_left_out_or_added_is_seen(ours: list[bytes], real: list[bytes]) -> None:
    """The control: without templateFlux, and with psfLnL, the comparison says so."""
    theirs = filling(alert for alert in map(read_packet, real) if "MPCORB" not in alert)
    changed = [{**alert, "diaSource": {**alert["diaSource"], "templateFlux": None, "psfLnL": -1.0}}
               for alert in map(read_packet, ours)]
    mine = filling(changed)
    assert missing(theirs, mine) == {("diaSource", "templateFlux")}
    assert invented(theirs, mine) == {("diaSource", "psfLnL")}
