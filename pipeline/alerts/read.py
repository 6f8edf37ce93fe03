"""Reading packets of any version that lsst-alert-packet ships, and the segment files of the files sink."""

import io
import json
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import fastavro
from fastavro.schema import load_schema

from pipeline.alerts.rows import long
from pipeline.alerts.stamps import Stamp, read_stamp
from pipeline.errors import PacketError
from schemas.alert_versions import packaged, path_of

HEADER: Final = 5                      # bytes: magic 0 and the schema id
SCHEMA_ID_KEY: Final = "rubin.schema_id"
_MAGIC: Final = b"Obj\x01"


def read_packet(packet: bytes) -> dict[str, Any]:
    """The alert of a wire-format packet; nulls are None (some old packets have NaN in their place)."""
    buffer = io.BytesIO(packet)
    try:
        schema = schema_of(schema_id(packet))
        buffer.seek(HEADER)
        found = fastavro.schemaless_reader(buffer, schema, None)
    except PacketError:
        raise
    except Exception as error:
        at = buffer.tell()
        raise PacketError(at, "it ends within a value" if at >= len(packet) else _reason(error)) from error
    if buffer.tell() != len(packet):
        raise PacketError(buffer.tell(), f"{len(packet) - buffer.tell()} bytes are left over")
    if not isinstance(found, dict):
        raise PacketError(HEADER, f"an alert is a record, got {type(found).__name__}")
    return found


def _reason(error: Exception) -> str:
    """Why decoding stopped, in the words of the format."""
    known = {IndexError: "a union's branch that the schema does not have", OverflowError: "a number out of range",
             UnicodeDecodeError: "a text that is not UTF-8", EOFError: "a length beyond its end",
             MemoryError: "more than fits into memory"}
    said = next((text for kind, text in known.items() if isinstance(error, kind)), "")
    return said or f"{type(error).__name__} {error}".strip()


def read_cutout(content: bytes) -> Stamp:
    """Image, variance, PSF and header of a cutout in an alert."""
    try:
        return read_stamp(content)
    except Exception as error:
        raise PacketError(0, f"cutout: {error}") from error


def schema_id(packet: bytes) -> int:
    """The schema id of a wire-format packet."""
    if len(packet) < HEADER:
        raise PacketError(len(packet), f"the wire header has {HEADER} bytes, got {len(packet)}")
    magic, identifier = struct.unpack(">bi", packet[:HEADER])
    if magic != 0:
        raise PacketError(0, f"the first byte must be 0, got {packet[0]}")
    return int(identifier)


def source_id(packet: bytes) -> int:
    """The diaSourceId of a packet, its first field in every version since 8, without decoding the rest."""
    schema_id(packet)
    value = shift = 0
    for offset, byte in enumerate(packet[HEADER:HEADER + 10], HEADER):
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1)
        if shift == 70:
            raise PacketError(offset, "the first long has more than 10 bytes")
    raise PacketError(len(packet), "it ends in the first long")


@lru_cache(maxsize=32)
def schema_of(identifier: int) -> Any:
    """The parsed Avro schema of an id: 1101 is version 11.1."""
    path = path_of(identifier)
    if path is None:
        major, minor = divmod(identifier, 100)
        raise PacketError(1, f"schema id {identifier} (version {major}.{minor}) is not one of lsst-alert-packet's: "
                             f"{', '.join(f'{a}.{b}' for a, b in packaged())}")
    return load_schema(path)


def schema_json(identifier: int) -> str:
    """The Avro schema of an id as JSON, every record written out where it is first used: what registries serve."""
    return json.dumps(plain(schema_of(identifier)))


def to_container(packets: Sequence[bytes]) -> bytes:
    """An Avro object container file, one block per packet, of packets of one schema id.

    The bodies are the packets' own bytes, so `from_container` gives the packets back unchanged, while every Avro tool
    reads the file as it is. The sync marker is a hash of the packets: equal packets make equal files.
    """
    identifiers = {schema_id(packet) for packet in packets}
    if len(identifiers) != 1:
        raise ValueError(f"a file holds packets of one schema id, got {sorted(identifiers)}")
    identifier = identifiers.pop()
    sync = blake2b(b"".join(packets), digest_size=16).digest()
    parts = [_container_header(identifier), sync]
    for packet in packets:
        parts += [long(1), long(len(packet) - HEADER), packet[HEADER:], sync]
    return b"".join(parts)


def from_container(content: bytes) -> list[bytes]:
    """The wire-format packets of a file that `to_container` wrote."""
    buffer = io.BytesIO(content)
    try:
        reader = fastavro.block_reader(buffer)
        header = struct.pack(">bi", 0, int(reader.metadata[SCHEMA_ID_KEY]))
        return [header + block.bytes_.getvalue() for block in reader]
    except Exception as error:
        raise PacketError(buffer.tell(), f"segment file: {type(error).__name__}: {error}") from error


def read_packets(folder: Path) -> Iterator[bytes]:
    """All packets of a files sink, in the order of visits, detectors and ids."""
    for path in sorted(Path(folder).glob("*.avro")):
        yield from from_container(path.read_bytes())


@lru_cache(maxsize=4)
def _container_header(identifier: int) -> bytes:
    entries = {"avro.codec": b"null", "avro.schema": schema_json(identifier).encode(),
               SCHEMA_ID_KEY: str(identifier).encode()}
    parts = [_MAGIC, long(len(entries))]
    for key, value in entries.items():
        parts += [long(len(key)), key.encode(), long(len(value)), value]
    return b"".join([*parts, b"\x00"])


def plain(schema: Any) -> Any:
    """A parsed schema without fastavro's own marks, its keys sorted: theirs differ from process to process."""
    if isinstance(schema, dict):
        return {key: plain(value) for key, value in sorted(schema.items()) if not key.startswith("__")}
    if isinstance(schema, list):
        return [plain(item) for item in schema]
    return schema
