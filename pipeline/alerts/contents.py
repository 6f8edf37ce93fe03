"""What packets hold: their records, which fields are filled, and what contradicts the rules of alerts."""

import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import fastavro
import numpy as np

from pipeline.alerts.read import HEADER, read_cutout, read_packet, schema_id, schema_of
from pipeline.alerts.stamps import Stamp
from pipeline.errors import PacketError
from schemas.alert import CUTOUT_MAX, CUTOUT_MIN
from schemas.alert_versions import OLDEST

CUTOUTS: Final = ("cutoutDifference", "cutoutScience", "cutoutTemplate")
HISTORIES: Final = ("prvDiaSources", "prvDiaForcedSources")
SINGLES: Final = ("diaSource", "diaObject", "ssSource", "ssObject", "mpc_orbits", "MPCORB")
PLACE_PX: Final = 2e-3        # of a position in a cutout's header: x and y are float32
PLACE_DEG: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Filled:
    """How often a field has a value."""

    n: int
    of: int

    @property
    def always(self) -> bool:
        return self.n == self.of

    @property
    def never(self) -> bool:
        return self.n == 0


def is_filled(value: object) -> bool:
    """Neither null nor NaN, which old packets have in place of null."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def records(alert: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, record) of an alert itself, of its single records, and of every row of its histories."""
    yield "alert", alert
    for name in SINGLES:
        if alert.get(name) is not None:
            yield name, alert[name]
    for name in HISTORIES:
        for row in alert.get(name) or ():
            yield name, row


def filled(alerts: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Filled]:
    """By record and field, in how many of the records it has a value."""
    counts: dict[tuple[str, str], list[int]] = {}
    for alert in alerts:
        for name, record in records(alert):
            for field, value in record.items():
                count = counts.setdefault((name, field), [0, 0])
                count[0] += is_filled(value)
                count[1] += 1
    return {key: Filled(n, of) for key, (n, of) in counts.items()}


def problems(packet: bytes) -> list[str]:
    """What is wrong with a packet: it cannot be read, is not what its schema writes, or contradicts itself.

    The rules are those of Rubin Alert Production, sections 3.1, 4.8 and 4.10; all public alerts at hand keep them. Of
    versions before 7.4, whose fields have other names, the schema alone is checked.
    """
    try:
        alert = read_packet(packet)
    except PacketError as error:
        return [str(error)]
    if divmod(schema_id(packet), 100) < OLDEST:
        return list(_encoding(packet, alert))
    return [*_encoding(packet, alert), *_identity(alert), *_history(alert), *_cutouts(alert)]


def _encoding(packet: bytes, alert: Mapping[str, Any]) -> Iterator[str]:
    again = io.BytesIO()
    fastavro.schemaless_writer(again, schema_of(schema_id(packet)), alert)
    if again.getvalue() != packet[HEADER:]:
        yield "its bytes are not those that its schema writes for what it holds"


def _identity(alert: Mapping[str, Any]) -> Iterator[str]:
    source = alert["diaSource"]
    identifier = alert.get("diaSourceId", alert.get("alertId"))
    if identifier != source["diaSourceId"]:
        yield f"its id is {identifier}, its diaSource's {source['diaSourceId']}"
    owner, moving = alert.get("diaObject"), alert.get("ssSource", alert.get("ssObject"))
    if owner is None and not source.get("ssObjectId"):
        yield "it belongs to no diaObject and to no Solar System object"
    if owner is not None and owner["diaObjectId"] != source["diaObjectId"]:
        yield f"its diaObject is {owner['diaObjectId']}, its diaSource's {source['diaObjectId']}"
    if moving is not None and moving["ssObjectId"] != source["ssObjectId"]:
        yield f"its Solar System object is {moving['ssObjectId']}, its diaSource's {source['ssObjectId']}"
    if source.get("ssObjectId") and (owner is not None or any(alert[name] is not None for name in HISTORIES)):
        yield "a Solar System alert has neither diaObject nor histories"


def _history(alert: Mapping[str, Any]) -> Iterator[str]:
    source, owner = alert["diaSource"], alert.get("diaObject")
    for name in HISTORIES:
        rows = alert[name] or ()
        times = [row["midpointMjdTai"] for row in rows]
        if times != sorted(times):
            yield f"{name} descends in time"
        if times and max(times) > source["midpointMjdTai"]:
            yield f"{name} holds what is later than the alert"
        if owner is not None and any(row["diaObjectId"] != owner["diaObjectId"] for row in rows):
            yield f"{name} holds rows of another object"
    if any(row["diaSourceId"] == source["diaSourceId"] for row in alert["prvDiaSources"] or ()):
        yield "prvDiaSources holds the triggering source"
    if owner is not None and owner.get("nDiaSources", 2) <= 1 and alert["prvDiaSources"] is not None:
        yield "prvDiaSources is there though nDiaSources is 1"


def _cutouts(alert: Mapping[str, Any]) -> Iterator[str]:
    for name in CUTOUTS:
        if alert[name] is None:
            continue
        try:
            stamp = read_cutout(alert[name])
        except PacketError as error:
            yield f"{name}: {error.reason}"
        else:
            yield from (f"{name}: {text}" for text in _stamp(stamp, alert["diaSource"]))


def _stamp(stamp: Stamp, source: Mapping[str, Any]) -> Iterator[str]:
    side = stamp.image.shape
    if side[0] != side[1] or not CUTOUT_MIN <= side[0] <= CUTOUT_MAX:
        yield f"a square of {CUTOUT_MIN} to {CUTOUT_MAX} pixels expected, got {side[1]} x {side[0]}"
    wanted = source.get("bboxSize")
    if wanted is not None and side[0] != np.clip(wanted, CUTOUT_MIN, CUTOUT_MAX):
        yield f"{side[0]} pixels wide, with a bboxSize of {wanted}"
    if stamp.variance.shape != side:
        yield f"its variance has {stamp.variance.shape[::-1]} pixels, its image {side[::-1]}"
    if stamp.header.get("BUNIT") != "nJy":
        yield f"BUNIT must be nJy, got {stamp.header.get('BUNIT')!r}"
    for i, (axis, angle) in enumerate((("x", "ra"), ("y", "dec")), 1):
        names = f"CUTMIN{axis.upper()}", f"CRPIX{i}", f"CRVAL{i}"
        values = [stamp.header.get(key) for key in names]
        if not all(isinstance(value, int | float) for value in values):
            yield f"{', '.join(names)} must be numbers, got {values}"
            continue
        corner, pixel, angle_of = (float(value) for value in values if isinstance(value, int | float))
        if abs(corner + pixel - source[axis]) > PLACE_PX:
            yield f"its header puts the source at {axis} = {corner + pixel:.3f}, the alert at {source[axis]:.3f}"
        if abs(angle_of - source[angle]) > PLACE_DEG:
            yield f"CRVAL{i} is {angle_of}, the alert's {angle} {source[angle]}"


__all__ = ["CUTOUTS", "HISTORIES", "Filled", "filled", "is_filled", "problems", "records"]
