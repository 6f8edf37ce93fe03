"""The packets of one detector-visit: wire header, schemaless Avro, cutouts.

Each row is encoded once. Histories are sorted by object and time first, so that an object's history is one slice of
the encoded rows and a packet is a join of about fifteen pieces. The version's own declaration says which fields there
are and in which order; a field that nothing here provides is null.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Final

import numpy as np

from pipeline.alerts.rows import HISTORY_ZEROS, ORBIT_NEVER_NULL, TRIGGER_ZEROS, Encoded, encode, long
from pipeline.alerts.stamps import Place, data, mask_unit, primary_header, psf_unit, variance_header
from pipeline.config import AlertConfig
from pipeline.images import Cutouts
from pipeline.ports import History, Segment
from schemas.alert import corner
from schemas.alert_versions import Version, version
from schemas.exposure import Visit
from schemas.table import DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, MPC_ORBITS, SS_SOURCE, Table, join, take
from schemas.wcs import Wcs

NULL: Final = b"\x00"
VALUE: Final = b"\x02"          # branch 1 of [null, T]
END: Final = b"\x00"            # of an array

# What all public alerts of March 2026 leave null though the tables may hold it, by record. Lengths and errors of our
# trail fit have no counterpart there; the ephemerides' rates are 0 there, so that no track has a direction.
LEFT_NULL: Final[Mapping[str, frozenset[str]]] = {
    DIA_SOURCE.name: frozenset({"psfLnL", "trailRaErr", "trailDecErr", "trailLengthErr", "trailAngleErr", "trailChi2",
                                "timeWithdrawnMjdTai"}),
    DIA_OBJECT.name: frozenset({"firstDiaSourceMjdTai", "lastDiaSourceMjdTai"}),
    SS_SOURCE.name: frozenset({"ephOffsetAlongTrack", "ephOffsetCrossTrack"})}


def package(visit: Visit, detector: int, sources: np.ndarray, objects: np.ndarray, history: History,
            forced: np.ndarray, ss_sources: np.ndarray, orbits: np.ndarray, *, difference: Cutouts, science: Cutouts,
            template: Cutouts, wcs: Wcs, config: AlertConfig) -> Segment:
    """One packet per source, in the order of `sources`; keys are ssObjectIds of Solar System alerts, else diaObjectIds.

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
        One stamp per source, parallel to `sources`. A stamp begins where `schemas.alert.corner` says; a stamp without
        pixels (its centroid off the image) is a null in the packet.
    wcs : Wcs
        Of the science image.

    References
    ----------
    Rubin Alert Production, sections 3.1 and 4.10: an alert of a Solar System object has ssSource and mpc_orbits, no
    diaObject and no histories; prvDiaSources leaves out the trigger and exists when the object has several sources.
    """
    for name, cutouts in (("difference", difference), ("science", science), ("template", template)):
        if len(cutouts) != len(sources):
            raise ValueError(f"one {name} cutout per source expected: {len(sources)} sources, {len(cutouts)} cutouts")
    form = _Form(version(config.schema), LEFT_NULL if config.fields == "deployed" else {})
    belongs = np.where(sources["ssObjectId"] != 0, 0, sources["diaObjectId"])
    window = _Window(np.unique(belongs[belongs != 0]), visit.mjd_tai - config.history_days, visit.mjd_tai)
    histories = _Histories(
        previous=_Slices.of(form, DIA_SOURCE, window.earlier(history.sources, sources), window.objects),
        forced=_Slices.of(form, DIA_FORCED_SOURCE, window.with_forced(history.forced, forced), window.objects),
        objects=_objects(form, objects, window.objects), n_sources=_counts(objects, window.objects))
    slots = np.searchsorted(window.objects, belongs)
    triggers = form.encode(DIA_SOURCE, sources, zeros=TRIGGER_ZEROS)
    ids = np.ascontiguousarray(sources["diaSourceId"])
    stamps = _stamps(sources, (difference, science, template), wcs, visit.rotation, as_paper=config.cutouts == "paper")
    owned = belongs != 0
    fields: dict[str, Iterable[bytes]] = {
        "diaSourceId": map(long, ids.tolist()),
        "observation_reason": repeat(_text(visit.observation_reason)), "target_name": repeat(_text(visit.target_name)),
        "diaSource": (triggers.rows(i, i + 1) for i in range(len(ids))),
        "prvDiaSources": _of_objects(histories.sources, slots, owned),
        "prvDiaForcedSources": _of_objects(histories.forced_sources, slots, owned),
        "diaObject": _of_objects(histories.object, slots, owned),
        **_solar_system(form, sources, ss_sources, orbits),
        "cutoutDifference": stamps[0], "cutoutScience": stamps[1], "cutoutTemplate": stamps[2]}
    columns = [fields.get(name, repeat(NULL)) for name in form.version.fields]
    packets = tuple(map(b"".join, zip(repeat(form.version.header, len(ids)), *columns, strict=False)))
    keys = np.where(sources["ssObjectId"] != 0, sources["ssObjectId"], sources["diaObjectId"]).astype(np.int64)
    return Segment(visit.visit, detector, ids, packets, keys)


@dataclass(frozen=True, slots=True)
class _Form:
    """A version of the schema, and what is left null in it."""

    version: Version
    blank: Mapping[str, frozenset[str]]

    def encode(self, table: Table, rows: np.ndarray, *, zeros: frozenset[str] = frozenset(),
               beside: Mapping[str, np.ndarray] | None = None) -> Encoded:
        """Rows as the version's record; without bytes where the version has no such record."""
        return encode(table, rows, zeros=zeros, fields=self.version.records.get(table.name, ()),
                      blank=self.blank.get(table.name, frozenset()), beside=beside)


@dataclass(frozen=True, slots=True)
class _Window:
    """What belongs into the histories of a set of objects."""

    objects: np.ndarray        # (k,) sorted ids
    since: float
    until: float

    def earlier(self, rows: np.ndarray, triggers: np.ndarray) -> np.ndarray:
        """Rows of the objects in the window without the triggers, by object and time."""
        keep = self._keep(rows) & ~np.isin(rows["diaSourceId"], triggers["diaSourceId"])
        return self._sorted(take(rows, keep))

    def with_forced(self, earlier: np.ndarray, now: np.ndarray) -> np.ndarray:
        """Earlier forced rows and this visit's, by object and time."""
        return self._sorted(join([take(earlier, self._keep(earlier)), take(now, self._keep(now))]))

    def _keep(self, rows: np.ndarray) -> np.ndarray:
        time = rows["midpointMjdTai"]
        return np.asarray(np.isin(rows["diaObjectId"], self.objects) & (time >= self.since) & (time <= self.until))

    @staticmethod
    def _sorted(rows: np.ndarray) -> np.ndarray:
        return take(rows, np.lexsort((rows["midpointMjdTai"], rows["diaObjectId"])))


@dataclass(frozen=True, slots=True)
class _Slices:
    """Encoded rows in groups."""

    rows: Encoded
    first: np.ndarray          # (k,) of each group
    last: np.ndarray           # (k,) one after each group

    @classmethod
    def of(cls, form: _Form, table: Table, rows: np.ndarray, groups: np.ndarray) -> "_Slices":
        keys = np.ascontiguousarray(rows["diaObjectId"])
        zeros = HISTORY_ZEROS if table is DIA_SOURCE else frozenset[str]()
        return cls(form.encode(table, rows, zeros=zeros), np.searchsorted(keys, groups, "left"),
                   np.searchsorted(keys, groups, "right"))

    def array(self, k: int) -> bytes:
        """Group `k` as an Avro array."""
        n = int(self.last[k] - self.first[k])
        return long(n) + self.rows.rows(int(self.first[k]), int(self.last[k])) + END if n else END


@dataclass(frozen=True, slots=True)
class _Histories:
    """What is known of each object, encoded."""

    previous: _Slices
    forced: _Slices
    objects: Encoded
    n_sources: np.ndarray

    def sources(self, k: int) -> bytes:
        return VALUE + self.previous.array(k) if self.n_sources[k] > 1 else NULL

    def forced_sources(self, k: int) -> bytes:
        return VALUE + self.forced.array(k)

    def object(self, k: int) -> bytes:
        return VALUE + self.objects.rows(k, k + 1)


def _of_objects(piece: Callable[[int], bytes], slots: np.ndarray, owned: np.ndarray) -> Iterator[bytes]:
    """The piece of each trigger's object; null where it has none."""
    return (piece(k) if known else NULL for k, known in zip(slots.tolist(), owned.tolist(), strict=True))


def _objects(form: _Form, objects: np.ndarray, ids: np.ndarray) -> Encoded:
    return form.encode(DIA_OBJECT, take(objects, _where(objects["diaObjectId"], ids, "DiaObject")))


def _counts(objects: np.ndarray, ids: np.ndarray) -> np.ndarray:
    return np.asarray(objects["nDiaSources"][_where(objects["diaObjectId"], ids, "DiaObject")])


def _where(keys: np.ndarray, wanted: np.ndarray, what: str) -> np.ndarray:
    order = np.argsort(keys, kind="stable")
    at = np.searchsorted(keys, wanted, sorter=order)
    found = at < len(keys)
    found[found] = keys[order[at[found]]] == wanted[found]
    if not found.all():
        raise ValueError(f"no {what} for {wanted[~found][0]}")
    return np.asarray(order[at])


def _solar_system(form: _Form, sources: np.ndarray, ss_sources: np.ndarray,
                  orbits: np.ndarray) -> dict[str, list[bytes]]:
    """ssSource and mpc_orbits of each source."""
    out = {name: [NULL] * len(sources) for name in ("ssSource", "mpc_orbits")}
    wanted = np.flatnonzero(sources["ssObjectId"] != 0)
    if not len(wanted):
        return out
    rows = take(ss_sources, _where(ss_sources["diaSourceId"], sources["diaSourceId"][wanted], "SSSource"))
    by_name = {name: i for i, name in enumerate(orbits["designation"].tolist())}
    orbit = np.array([by_name.get(name, -1) for name in rows["designation"].tolist()])
    known = np.flatnonzero(orbit >= 0)
    found = form.encode(SS_SOURCE, rows)
    elements = form.encode(MPC_ORBITS, take(orbits, orbit[known]), zeros=ORBIT_NEVER_NULL,
                           beside={"ssObjectId": rows["ssObjectId"][known]})
    for k, i in enumerate(wanted.tolist()):
        out["ssSource"][i] = VALUE + found.rows(k, k + 1)
    for k, i in enumerate(wanted[known].tolist()):
        out["mpc_orbits"][i] = VALUE + elements.rows(k, k + 1)
    return out


def _text(text: str) -> bytes:
    raw = text.encode()
    return VALUE + long(len(raw)) + raw if raw else NULL


def _stamps(sources: np.ndarray, kinds: tuple[Cutouts, ...], wcs: Wcs, rotation: float, *,
            as_paper: bool) -> list[list[bytes]]:
    """The cutouts of each kind as Avro bytes, or nulls."""
    psfs = [psf_unit(cutouts.psf) for cutouts in kinds]
    pc = _jacobians(wcs, sources["x"].astype(float), sources["y"].astype(float), sources["dec"])
    out: list[list[bytes]] = [[] for _ in kinds]
    for i, (x, y, ra, dec) in enumerate(zip(*(sources[c].tolist() for c in ("x", "y", "ra", "dec")), strict=True)):
        headers: dict[tuple[int, int], bytes] = {}
        for pieces, cutouts, psf in zip(out, kinds, psfs, strict=True):
            image = cutouts.image[i]
            if not image.size:
                pieces.append(NULL)
                continue
            shape = image.shape[0], image.shape[1]
            if shape not in headers:
                place = Place(corner(x, shape[1]), corner(y, shape[0]), rotation, (x, y), pc[i], (ra, dec))
                headers[shape] = primary_header(place, shape, projected=as_paper)
            mask = mask_unit(cutouts.mask[i]) if as_paper and cutouts.mask else b""
            content = b"".join((headers[shape], data(image.astype(">f4")), mask, variance_header(shape),
                                data(cutouts.variance[i].astype(">f4")), psf))
            pieces.append(VALUE + long(len(content)) + content)
    return out


def _jacobians(wcs: Wcs, x: np.ndarray, y: np.ndarray, dec: np.ndarray) -> list[tuple[float, float, float, float]]:
    h = 0.5
    steps = [wcs.sky(x + dx, y + dy) for dx, dy in ((-h, 0.0), (h, 0.0), (0.0, -h), (0.0, h))]
    cosine = np.cos(np.radians(dec))
    pairs = [((b[0] - a[0] + 180.0) % 360.0 - 180.0, b[1] - a[1]) for a, b in (steps[:2], steps[2:])]
    columns = (pairs[0][0] * cosine, pairs[1][0] * cosine, pairs[0][1], pairs[1][1])
    return list(zip(*(column.tolist() for column in columns), strict=True))
