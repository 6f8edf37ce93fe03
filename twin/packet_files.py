"""Alert packets in files, looked at: what they hold, whether they are sound, and their cutouts as files and pictures.

    one packet as on the wire (.bin; .avro.gz of an archive), an Avro container (.avro of a run or anybody), or a folder
    of such files  ->  packets  ->  a line each, records as JSON, fields filled, FITS files and PNG
"""

import gzip
import io
import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fastavro
import numpy as np

from pipeline.alerts import Stamp, read_cutout, read_packet
from pipeline.alerts.contents import CUTOUTS, HISTORIES, filled, problems
from pipeline.alerts.read import SCHEMA_ID_KEY, from_container, schema_id
from pipeline.errors import InputError, PacketError

LARGEST: Final = 1 << 28           # bytes that a compressed file may hold
_NAME: Final = re.compile(r"lsst\.v(\d+)_(\d+)\.alert")
_HEAD: Final = (f"{'diaSourceId':>20} {'version':>7} {'kB':>6} {'band':>4} {'ra':>10} {'dec':>10} {'S/N':>6} "
                f"{'psfFlux [nJy]':>13} {'score':>5} {'belongs to':<26} {'history':>7} {'forced':>6} cutouts")


@dataclass(frozen=True, slots=True)
class Found:
    """A packet of a file, or why there is none."""

    path: Path
    packet: bytes
    alert: Mapping[str, Any] | None        # None where it cannot be read
    problems: tuple[str, ...]

    @property
    def id(self) -> int | None:
        """The diaSourceId."""
        return int(self.alert["diaSource"]["diaSourceId"]) if self.alert is not None else None


def packets_of(path: Path) -> list[bytes]:
    """The wire-format packets of a file; InputError where it holds none."""
    content = _plain(path)
    if not content.startswith(b"Obj\x01"):
        return [content]
    try:
        reader = fastavro.reader(io.BytesIO(content))
        return from_container(content) if SCHEMA_ID_KEY in reader.metadata else list(_others(path, reader))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: not a readable Avro file ({type(error).__name__}: {error})") from None


def look(paths: Sequence[Path], *, only: Sequence[int] = ()) -> Iterator[Found]:
    """Every packet of files and of the files in folders, checked; those of some ids alone where `only` names them."""
    for path in _files(paths):
        for packet in packets_of(path):
            found = _checked(path, packet)
            if not only or found.id in only:
                yield found


def line(found: Found) -> str:
    """What a packet holds, in one line under `heading`; then a line per problem."""
    text = f"{found.path}: {len(found.packet)} bytes" if found.alert is None else _summary(found, found.alert)
    return "\n".join([text, *(f"  ! {problem}" for problem in found.problems)])


def heading() -> str:
    """The head of the lines."""
    return _HEAD


def whole(alert: Mapping[str, Any]) -> str:
    """An alert as one JSON object; of a cutout its length in bytes."""
    def plain(value: Any) -> Any:
        return f"{len(value)} bytes" if isinstance(value, bytes) else value.isoformat()

    return json.dumps(alert, default=plain, indent=1)


def filling(alerts: Sequence[Mapping[str, Any]]) -> str:
    """Per record, how many fields are always, sometimes and never filled, and the names of the latter two."""
    counts = filled(alerts)
    lines = []
    for record in dict.fromkeys(record for record, _ in counts):
        mine = {field: count for (name, field), count in counts.items() if name == record}
        partly = [f"{field} {100 * count.n / count.of:.0f} %" for field, count in mine.items()
                  if not (count.always or count.never)]
        never = [field for field, count in mine.items() if count.never]
        lines += [f"{record}: {max(count.of for count in mine.values())} records of {len(mine)} fields",
                  f"  sometimes: {', '.join(partly) or '-'}", f"  never: {', '.join(never) or '-'}"]
    return "\n".join(lines)


def write_cutouts(found: Found, folder: Path) -> int:
    """ID_Difference.fits and the like as they are in the packet, and ID.png of the three; the number of FITS files.

    Cutouts that cannot be read have no picture: the packet's problems say why.
    """
    if found.alert is None:
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    stamps: dict[str, Stamp] = {}
    n = 0
    for name in CUTOUTS:
        content = found.alert.get(name)
        if not isinstance(content, bytes):          # null; of versions before 5, a record
            continue
        (folder / f"{found.id}_{name.removeprefix('cutout')}.fits").write_bytes(content)
        n += 1
        try:
            stamps[name] = read_cutout(content)
        except PacketError:
            continue
    if stamps:
        _draw(found.alert, stamps, folder / f"{found.id}.png")
    return n


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            inside = sorted(child for child in path.iterdir()
                            if child.name.endswith((".avro", ".bin", ".avro.gz")))
            if not inside:
                raise InputError(f"{path}: no packets in it (files .avro, .bin or .avro.gz expected)")
            yield from inside
        elif path.is_file():
            yield path
        else:
            raise InputError(f"{path}: no such file or folder")


def _plain(path: Path) -> bytes:
    content = path.read_bytes()
    if not content:
        raise InputError(f"{path}: the file is empty")
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        with gzip.open(io.BytesIO(content)) as file:
            content = file.read(LARGEST + 1)
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: not a readable gzip file ({error})") from None
    if len(content) > LARGEST:
        raise InputError(f"{path}: more than {LARGEST} bytes when unpacked")
    return content


def _others(path: Path, reader: Any) -> Iterator[bytes]:
    """Packets of a container that another program wrote, under the version that its schema's name says."""
    schema = reader.writer_schema
    named = _NAME.fullmatch(str(schema.get("name", ""))) if isinstance(schema, dict) else None
    if named is None:
        said = schema.get("name") if isinstance(schema, dict) else schema
        raise InputError(f"{path}: a file of Rubin alerts has the schema lsst.vMAJOR_MINOR.alert, got {said}")
    header = struct.pack(">bi", 0, int(named[1]) * 100 + int(named[2]))
    for record in reader:
        body = io.BytesIO()
        fastavro.schemaless_writer(body, schema, record)
        yield header + body.getvalue()


def _checked(path: Path, packet: bytes) -> Found:
    try:
        alert = read_packet(packet)
    except PacketError as error:
        return Found(path, packet, None, (str(error),))
    return Found(path, packet, alert, tuple(problems(packet)))


def _summary(found: Found, alert: Mapping[str, Any]) -> str:
    source = alert["diaSource"]
    owner, moving = alert.get("diaObject"), alert.get("ssSource") or alert.get("ssObject")
    name = (moving.get("designation") or f"ssObject {moving['ssObjectId']}") if moving else \
        f"{owner['diaObjectId']}" if owner else "-"
    flux, dec = source.get("psfFlux", source.get("psFlux")), source.get("dec", source.get("decl"))       # until 4.0
    sides = {side for side in map(_side, (alert.get(key) for key in CUTOUTS)) if side}
    major, minor = divmod(schema_id(found.packet), 100)
    lengths = [str(len(alert[key])) if alert.get(key) is not None else "-" for key in HISTORIES]
    return (f"{found.id:>20} {f'{major}.{minor}':>7} {len(found.packet) / 1e3:6.1f} {source.get('band') or '-':>4} "
            f"{source['ra']:10.5f} {dec:+10.5f} {_number(source.get('snr'), '6.1f')} "
            f"{_number(flux, '13.1f')} {_number(source.get('reliability'), '5.2f')} {name:<26} "
            f"{lengths[0]:>7} {lengths[1]:>6} {'/'.join(sorted(sides)) or '-'}")


def _side(content: object) -> str:
    if not isinstance(content, bytes):
        return ""
    try:
        image = read_cutout(content).image
    except PacketError:
        return "unreadable"
    return f"{image.shape[1]}x{image.shape[0]}"


def _number(value: float | None, form: str) -> str:
    return f"{value:{form}}" if value is not None else "-".rjust(int(form.partition(".")[0]))


def _draw(alert: Mapping[str, Any], stamps: Mapping[str, Stamp], path: Path) -> None:
    """Science, template and difference side by side, North and East marked, in nJy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.3), layout="constrained")
    source = alert["diaSource"]
    panels = figure.subplots(1, 3)
    for axes, name in zip(panels, ("cutoutScience", "cutoutTemplate", "cutoutDifference"), strict=True):
        axes.set_title(f"{name.removeprefix('cutout')} [nJy]", fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        if name not in stamps:
            axes.text(0.5, 0.5, "no cutout", ha="center", va="center", transform=axes.transAxes, fontsize=9)
            continue
        image = stamps[name].image
        low, high = _limits(image, symmetric=name == "cutoutDifference")
        shown = axes.imshow(image, origin="lower", cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        figure.colorbar(shown, ax=axes, shrink=0.7, pad=0.02).ax.tick_params(labelsize=7)
        _compass(axes, stamps[name])
    figure.suptitle(f"{source['diaSourceId']}   {source.get('band') or ''}   RA {source['ra']:.5f} Dec "
                    f"{source['dec']:+.5f}   psfFlux {_number(source.get('psfFlux'), '.0f')} nJy   S/N "
                    f"{_number(source.get('snr'), '.1f')}", fontsize=9)
    figure.savefig(path, dpi=110)


def _limits(image: np.ndarray, *, symmetric: bool) -> tuple[float, float]:
    """Of the grey scale: nearly all pixels; the difference's about zero."""
    known = image[np.isfinite(image)]
    if not known.size:
        return 0.0, 1.0
    low, high = np.percentile(known, [1.0, 99.5])
    if symmetric:
        low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
    return float(low), float(high if high > low else low + 1.0)


def _compass(axes: Any, stamp: Stamp) -> None:
    """Arrows to the North and the East, from the cutout's linear WCS."""
    pc = np.array([[float(str(stamp.header.get(f"PC{i}_{j}", float(i == j)))) for j in (1, 2)] for i in (1, 2)])
    if abs(np.linalg.det(pc)) < 1e-30:
        return
    pixels = np.linalg.inv(pc)                          # columns: pixels per degree to the East and to the North
    length = 0.17 * stamp.image.shape[0]
    origin = np.array([0.2, 0.2]) * stamp.image.shape[0]
    for direction, label in zip(pixels.T, "EN", strict=True):
        step = direction / np.hypot(*direction) * length
        axes.annotate(label, origin, origin + step, color="tab:orange", fontsize=8, ha="center", va="center",
                      arrowprops={"arrowstyle": "<-", "color": "tab:orange", "lw": 1.0})


__all__ = ["Found", "filling", "heading", "line", "look", "packets_of", "whole", "write_cutouts"]
