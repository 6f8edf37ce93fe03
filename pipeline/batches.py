"""What of an outbox is sent together: small segments joined, large ones in pieces, and nothing a second time.

A sink that remembers commits packets and position in one transaction, whose cost is per transaction: segments that lie
one after another go together up to `BATCH_BYTES`. No batch holds more than that unless one packet does, whatever a
visit's alerts amount to: packets are read from the outbox when the batch is sent.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.alerts.counted import Lengths
from pipeline.errors import NonRetriableError
from pipeline.ports import Position, Segment

BATCH_BYTES: Final = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Waiting:
    """A segment of the outbox, of which a sink already holds the first packets."""

    segment: Segment
    held: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """What is sent at once."""

    packets: Sequence[bytes]
    keys: Sequence[int]
    position: Position | None      # that of its last packet


@dataclass(frozen=True, slots=True)
class Batch:
    """Parts of segments that are sent together, and the segments that are finished with them."""

    parts: tuple[Segment, ...]
    finished: tuple[Segment, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def size(self) -> int:
        """Bytes of all packets."""
        return sum(part.size for part in self.parts)

    @property
    def visit(self) -> int:
        return self.parts[0].visit

    @property
    def detector(self) -> int:
        return self.parts[0].detector

    @property
    def outbox(self) -> str:
        return self.parts[0].outbox

    def held(self, position: Position | None) -> int:
        """How many of the first a sink holds that is at `position`."""
        if position is None:
            return 0
        return sum(int(np.searchsorted(part.sequences, position.sequence, "right")) for part in self.parts)

    def part(self, first: int) -> Piece:
        """What remains from packet `first` on, read from the outbox now."""
        if len(self.parts) == 1 and isinstance(self.parts[0].packets, Lengths):
            rest = self.parts[0].part(slice(first, None))
            return Piece(rest.packets, rest.keys.tolist(), _end(self.parts[0]))
        packets: list[bytes] = []
        keys: list[int] = []
        last = None
        for part in self.parts:
            here = slice(min(first, len(part)), None)
            first -= here.start
            packets.extend(part.packets[here])
            keys.extend(part.keys[here].tolist())
            last = _end(part) or last
        return Piece(packets, keys, last)


def _end(part: Segment) -> Position | None:
    """The position of its last packet; None where it has none."""
    if not len(part) or not len(part.sequences):
        return None
    return Position(part.outbox, int(part.sequences[-1]), int(part.ids[-1]))


def beyond(segments: Sequence[Segment], position: Position | None) -> list[Waiting]:
    """The segments of an outbox (in order of sequence), each with how much of it a sink at `position` holds.

    NonRetriableError where the position is none that this outbox can have reached: a store that was put back from an
    older copy gives sequences out again, and what carries them now was never sent.
    """
    if position is None:
        return [Waiting(segment) for segment in segments]
    held = [int(np.searchsorted(segment.sequences, position.sequence, "right")) for segment in segments]
    touched = [(segment, n) for segment, n in zip(segments, held, strict=True) if n]
    if touched:
        segment, n = touched[-1]
        if int(segment.sequences[n - 1]) != position.sequence or int(segment.ids[n - 1]) != position.id:
            raise NonRetriableError(
                f"outbox {position.outbox}: the sink holds it up to sequence {position.sequence} (diaSourceId "
                f"{position.id}), but the store has diaSourceId {segment.ids[n - 1]} at {segment.sequences[n - 1]}: it "
                "is an older copy, and what it would send cannot be told from what was sent")
    return [Waiting(segment, n) for segment, n in zip(segments, held, strict=True)]


def batches(waiting: Sequence[Waiting], *, together: bool, limit: int = BATCH_BYTES) -> Iterator[Batch]:
    """What to send, in order; with `together` segments may share a batch."""
    parts: list[Segment] = []
    finished: list[Segment] = []
    size = 0
    for one in waiting:
        for piece, last in _pieces(one, limit):
            if parts and (not together or size + piece.size > limit):
                yield Batch(tuple(parts), tuple(finished))
                parts, finished, size = [], [], 0
            parts.append(piece)
            size += piece.size
            if last:
                finished.append(one.segment)
    if parts:
        yield Batch(tuple(parts), tuple(finished))


def _pieces(waiting: Waiting, limit: int) -> Iterator[tuple[Segment, bool]]:
    """A segment's packets that are not held, in pieces of at most `limit` bytes; whether a piece is the last."""
    segment, first = waiting.segment, waiting.held
    lengths = segment.lengths
    while True:
        last = max(first + int(np.searchsorted(np.cumsum(lengths[first:]), limit, "right")), first + 1)
        ended = last >= len(segment)
        yield segment.part(slice(first, last)), ended
        if ended:
            return
        first = last
