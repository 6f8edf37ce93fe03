"""What a consumer receives: a message, the alert in it, or the reason why there is none, and where that goes."""

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from pipeline.alerts.read import read_packet
from pipeline.durable import write_whole
from pipeline.errors import InputError, PacketError, RetriableError

MAX_PACKET: Final = 4 * 1024 * 1024    # bytes, as the producer has it; a packet with a long history has 300 kB
MAX_ID: Final = 2**63 - 1
TOPIC_NAME: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}", re.ASCII)   # Kafka's own rule

Positions = dict[tuple[str, int], int]     # (topic, partition) -> offset of the next message


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it was read."""

    topic: str
    partition: int
    offset: int
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int = -1             # -1: none

    @property
    def source(self) -> tuple[str, int]:
        return self.topic, self.partition


@dataclass(frozen=True, slots=True)
class Alert:
    """A message that holds a readable packet."""

    message: Message
    identifier: int                    # diaSourceId
    visit: int | None                  # None in schemas before 7

    @property
    def packet(self) -> bytes:
        return self.message.value


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that could not be used, and why."""

    message: Message
    reason: str


class Handler(Protocol):
    """What a consumer does with alerts."""

    def handle(self, alerts: Sequence[Alert]) -> Iterable[Rejected]:
        """Take some more, perhaps none, because none came; those that cannot be used come back with their reason."""
        ...

    def settled(self, read: Positions) -> Positions:
        """How far of what was read is stored for good, so that its offsets may be committed."""
        ...

    def finish(self) -> Iterable[Rejected]:
        """Store all that is still held: the stream has ended."""
        ...


class DeadLetters(Protocol):
    """Where messages go that could not be used."""

    def put(self, rejected: Rejected) -> None:
        """Store one for good."""
        ...

    def close(self) -> None: ...


def examine(message: Message, max_bytes: int = MAX_PACKET) -> Alert | Rejected:
    """The alert of a message, decoded from its first byte to its last, or why there is none."""
    if not message.value:
        return Rejected(message, "the message is empty")
    if len(message.value) > max_bytes:
        return Rejected(message, f"the message has {len(message.value)} bytes, a packet at most {max_bytes}")
    try:
        packet = read_packet(message.value)
    except PacketError as error:
        return Rejected(message, str(error))
    return _identified(message, packet)


def _identified(message: Message, packet: Mapping[str, Any]) -> Alert | Rejected:
    source = packet.get("diaSource")
    source = source if isinstance(source, dict) else {}
    identifier = packet.get("diaSourceId", source.get("diaSourceId"))      # before schema 8 it is in diaSource alone
    if not isinstance(identifier, int) or not 0 < identifier <= MAX_ID:
        return Rejected(message, f"a diaSourceId is 1 to {MAX_ID}, got {identifier!r}")
    if source.get("diaSourceId", identifier) != identifier:
        return Rejected(message, f"diaSourceId is {identifier}, that of its diaSource {source['diaSourceId']}")
    visit = source.get("visit")
    return Alert(message, identifier, visit if isinstance(visit, int) else None)


def described(rejected: Rejected) -> dict[str, Any]:
    """Where a rejected message stood, and why it was set aside."""
    message = rejected.message
    return {"topic": message.topic, "partition": message.partition, "offset": message.offset,
            "timestamp_ms": message.timestamp_ms, "reason": rejected.reason, "size": len(message.value)}


class DeadFolder:
    """One JSON file per message and reason, `topic_partition_offset_HASH.json`, the message's bytes in base64.

    A message set aside twice for one reason is one file. Written aside, synchronised to the disk, and renamed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"dead letters {self.folder}: {error.strerror}") from error

    def put(self, rejected: Rejected) -> None:
        message = rejected.message
        if not TOPIC_NAME.fullmatch(message.topic):
            raise ValueError(f"topic {message.topic!r} is not a name that Kafka allows")
        kind = hashlib.blake2b(rejected.reason.encode(), digest_size=4).hexdigest()
        name = f"{message.topic}_{int(message.partition):04d}_{int(message.offset):020d}_{kind}.json"
        headers = {key: _text(value) for key, value in message.headers}
        written_aside(self.folder / name, json.dumps(
            {**described(rejected), "headers": headers, "message": _text(message.value)}, indent=1).encode())

    def close(self) -> None:
        pass


@dataclass(slots=True)
class DeadMemory:
    """Dead letters in memory."""

    letters: list[Rejected] = field(default_factory=list)

    def put(self, rejected: Rejected) -> None:
        self.letters.append(rejected)

    def close(self) -> None:
        pass


def letters(folder: Path) -> list[Path]:
    """The files of a folder of dead letters, in the order of topics, partitions and offsets."""
    if not Path(folder).is_dir():
        raise InputError(f"dead letters {folder}: there is no such folder")
    return sorted(Path(folder).glob("[!.]*.json"))


def read_letter(path: Path) -> Rejected:
    """A message that a folder of dead letters holds."""
    try:
        found = json.loads(Path(path).read_text())
        message = Message(found["topic"], found["partition"], found["offset"], base64.b64decode(found["message"]),
                          tuple((key, base64.b64decode(value)) for key, value in found["headers"].items()),
                          found["timestamp_ms"])
        return Rejected(message, found["reason"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a dead letter ({type(error).__name__}: {error})") from error


def written_aside(path: Path, content: bytes, aside: Path | None = None) -> None:
    """Write a file so that it is there whole or not at all; RetriableError where it cannot be."""
    try:
        write_whole(path, content, aside or path.with_name(f".{path.name}.{os.getpid()}.part"))
    except OSError as error:
        raise RetriableError(f"{path} not written: {error}") from error


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


Stopped = Callable[[], bool]
