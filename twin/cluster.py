"""A Dask cluster by the address of its scheduler: its workers compute the points of a sweep.

A point is a pure function of its scenario and of the two tables that it names, so it goes out with both and the result
does not depend on where it was made: the workers must have the same version of us, which is asked of each beforehand.
"""

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pipeline.errors import InputError
from reports.surface import Point
from twin.closure import closure
from twin.scenario import Scenario

if TYPE_CHECKING:
    from twin.sweep import Settings

ANSWER_S: Final = 10.0         # how long a scheduler may take to answer
TABLES: Final = ("costs.toml", "model.toml")

Tables = tuple[bytes, bytes]   # cost table and counts model


def present() -> dict[str, str]:
    """What decides a point's numbers in this process."""
    return {"rubin-alert-twin": version("rubin-alert-twin"), "source": closure("twin.counts_night").fingerprint[:12],
            "python": ".".join(platform.python_version_tuple()[:2]), "numpy": version("numpy"),
            "simpy": version("simpy")}


def here() -> dict[str, str]:
    """What our own process has."""
    return present()


def differing(ours: Mapping[str, str], workers: Mapping[str, Mapping[str, str]]) -> str:
    """How the first worker that is not like us differs, in a line; "" where all are."""
    for address, there in sorted(workers.items()):
        parts = [f"{name} {there.get(name, 'none')}, here {value}" for name, value in ours.items()
                 if there.get(name) != value]
        if parts:
            return f"worker {address} has {'; '.join(parts)}"
    return ""


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """A client of the cluster at an address; InputError where none answers, or its workers are not like us."""
    try:
        from distributed import Client
    except ImportError:
        raise InputError("--cluster: install rubin-alert-twin[cluster]") from None
    try:
        client = Client(address, timeout=ANSWER_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"cluster {address}: no scheduler answers there ({' '.join(str(error).split())[:120]})"
                         ) from None
    try:
        _check(client, address)
        yield client
    finally:
        client.close()


def _check(client: Any, address: str) -> None:
    try:
        workers = client.run(present)
    except Exception as error:     # whatever a worker that lacks us, or a part of us, comes to
        raise InputError(f"cluster {address}: a worker has no rubin-alert-twin of this version ({error})") from None
    if not workers:
        raise InputError(f"cluster {address}: the scheduler has no workers")
    if unlike := differing(here(), workers):
        raise InputError(f"cluster {address}: {unlike}; install the same there")


def computed(client: Any, left: Sequence[tuple["Settings", Scenario]], tables: Sequence[Tables]) -> Iterator[Point]:
    """The points as the workers are done with them."""
    from distributed import as_completed

    futures = [client.submit(point_there, settings, scenario, given, pure=False)
               for (settings, scenario), given in zip(left, tables, strict=True)]
    try:
        with client.as_current():
            done = as_completed(futures)
        for future in done:
            yield future.result()
    finally:
        client.cancel(futures)     # those that nobody waits for any more


_folders: dict[str, "TemporaryDirectory[str]"] = {}     # of this process, by what is in them


def point_there(settings: "Settings", scenario: Scenario, tables: Tables) -> Point:
    """One platform's night, on a worker that has no files of the caller's."""
    from twin.sweep import point_of

    key = blake2b(b"\0".join(tables)).hexdigest()
    if key not in _folders:
        folder = TemporaryDirectory(prefix="alert-twin-")
        for name, content in zip(TABLES, tables, strict=True):
            (Path(folder.name) / name).write_bytes(content)
        _folders[key] = folder
    there = msgspec.structs.replace(
        scenario, platform=msgspec.structs.replace(scenario.platform, costs=TABLES[0]),
        counts=msgspec.structs.replace(scenario.counts, model=TABLES[1]))
    return point_of(settings, there, Path(_folders[key].name))


__all__ = ["Tables", "computed", "connected", "differing", "point_there", "present"]
