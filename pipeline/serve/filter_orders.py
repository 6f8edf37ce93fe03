"""What the filtering service and the process that runs the filters say to each other: a line of JSON each."""

import msgspec


class Job(msgspec.Struct, frozen=True):
    """One filter for one visit."""

    user: str
    limit: int                         # packets that it may still have
    wall_s: float
    cpu_s: int
    memory_mb: int
    sql: str = ""
    python: str = ""
    sent: tuple[int, ...] = ()         # ids that it had before


class Order(msgspec.Struct, frozen=True):
    """A visit and the filters to run on it."""

    spool: str                         # file of packets
    spans: tuple[tuple[int, int], ...]     # first byte and length of each
    jobs: tuple[Job, ...]
    processes: int


class Outcome(msgspec.Struct, frozen=True):
    """What a filter gave."""

    user: str
    ids: tuple[int, ...] = ()          # in the filter's order
    offence: str = ""                  # why it failed
    wall_s: float = 0.0
    cpu_s: float = 0.0


class Answer(msgspec.Struct, frozen=True):
    """All outcomes, and the seconds until the first filter could start."""

    outcomes: tuple[Outcome, ...]
    tables_s: float
