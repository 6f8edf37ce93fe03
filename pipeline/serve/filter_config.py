"""The filtering service's config: users, their filters, and their limits. Read strictly; defaults with their origin."""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Final

import msgspec

from pipeline.errors import InputError
from pipeline.pixel_config import AtLeastOne, NotNegative, Positive, Section

_USER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)


class Limits(Section, frozen=True):
    """What one user's filter may use for one visit."""

    packets: AtLeastOne = 20           # packets per visit and user: numBrokerAlerts (DMS-REQ-0343; RTN-090; paper 7.2)
    wall_s: Positive = 10.0            # ours: a visit comes every 34 s
    cpu_s: AtLeastOne = 5              # ours; whole seconds, as RLIMIT_CPU counts
    memory_mb: Annotated[int, msgspec.Meta(ge=64)] = 512       # ours: beyond what the visit itself takes
    offences: AtLeastOne = 3           # ours: visits in a row that a filter may fail before it is switched off


class Filter(Section, frozen=True):
    """A user's filter: SQL of anybody, or a Python file that the operator trusts."""

    user: str
    sink: str                          # kafka://host:port/topic or file:folder/
    sql: str = ""
    python: str = ""                   # path, from the config file's folder
    packets: AtLeastOne | None = None  # fewer than the limit

    @property
    def digest(self) -> str:
        """Changes with the filter, so that one that was switched off and mended is tried again."""
        return hashlib.blake2b(f"{self.sql}\0{self.python}".encode(), digest_size=12).hexdigest()


class FilterConfig(Section, frozen=True):
    """The service."""

    filters: Annotated[tuple[Filter, ...], msgspec.Meta(min_length=1)]
    limits: Limits = Limits()
    state: str = "filter-state"        # folder, from the config file's: what was sent, who is switched off
    quiet_s: NotNegative = 30.0        # ours: a visit is over when no alert of it came for so long
    max_alerts: AtLeastOne = 50_000    # of a visit at once; nAlertVisitPeak is 40,000 (DMS-REQ-0393)
    processes: AtLeastOne = 2          # filters that run side by side


def read_filters(path: Path) -> FilterConfig:
    """The config of a TOML file, its paths made absolute; InputError names the file and the key."""
    try:
        config = msgspec.toml.decode(path.read_bytes(), type=FilterConfig)
    except msgspec.ValidationError as error:
        raise InputError(f"{path}: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file ({error})") from None
    beside = path.absolute().parent
    seen: set[str] = set()
    for one in config.filters:
        _check(one, config.limits, seen, path, beside)
        seen.add(one.user)
    filters = tuple(msgspec.structs.replace(one, python=str(beside / one.python) if one.python else "")
                    for one in config.filters)
    return msgspec.structs.replace(config, filters=filters, state=str(beside / config.state))


def _check(one: Filter, limits: Limits, seen: set[str], path: Path, beside: Path) -> None:
    what = f"{path}: filter of user {one.user[:80]!r}"
    if not _USER.fullmatch(one.user):
        raise InputError(f"{what}: a name has 1 to 64 letters, digits, dots, dashes and underscores, none of the last "
                         "three in front")
    if one.user in seen:
        raise InputError(f"{what}: a user has one filter, this is another")
    if bool(one.sql.strip()) == bool(one.python.strip()):
        raise InputError(f"{what}: expected either sql or python")
    if one.python and not (beside / one.python).is_file():
        raise InputError(f"{what}: there is no file {beside / one.python}")
    if (one.packets or 1) > limits.packets:
        raise InputError(f"{what}: packets is at most {limits.packets}, got {one.packets}")
