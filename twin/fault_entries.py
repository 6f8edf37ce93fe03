"""An entry of `[[faults]]` that cannot be used: where it stands, what it says, and what was expected."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from twin.platform_config import FaultConfig, FaultKind

# What a kind says nothing without.
NEEDED: Final = {"service_slow": ("service", "factor"), "service_down": ("service",), "kafka_throttled": ("factor",),
                 "burst": ("factor",), "next_visit_late": ("delay_s",), "next_visit_out_of_order": ("delay_s",),
                 "image_late": ("delay_s",), "clock_skew": ("delay_s",)}
WANTED: Final = {"service": "the service it is of", "factor": "a factor that is not 1", "delay_s": "seconds above 0"}
HEADER: Final = re.compile(r"^\s*\[\[\s*faults\s*\]\]")


def refused(what: str, where: str, settings: Mapping[str, Any], source: str) -> str | None:
    """The error of a key `where` (`faults[1].rate`) in words; None where it is of something else."""
    found = re.fullmatch(r"faults\[(\d+)\](?:\.(\w+))?.*", where)
    if not found:
        return None
    number, key = int(found[1]), found[2]
    entry = settings["faults"][number]
    return f"{_place(source, settings, number)}: {_said(what, key, entry)}"


def incomplete(faults: Sequence[FaultConfig], settings: Mapping[str, Any], source: str) -> str | None:
    """What the first entry lacks that would do nothing without; None where all are whole."""
    for number, fault in enumerate(faults):
        for key in NEEDED.get(fault.kind, ()):
            value = getattr(fault, key)
            if value == getattr(FaultConfig(kind=fault.kind), key):
                given = f"{key} = {value!r}" if key in settings["faults"][number] else f"no key {key}"
                return f"{_place(source, settings, number)}: {given}, {fault.kind} needs {WANTED[key]}"
    return None


def _said(what: str, key: str | None, entry: Any) -> str:
    """msgspec's message with the value, and with what may stand there."""
    if not isinstance(entry, Mapping):
        return f"{what}, got {entry!r}"
    if unknown := re.search(r"unknown field `(.*)`", what):
        return f"unknown key {unknown[1]} = {entry[unknown[1]]!r}, expected {', '.join(FaultConfig.__struct_fields__)}"
    if key is None:
        return f"{what}: kind is one of {', '.join(get_args(FaultKind))}"
    given = f"{key} = {entry[key]!r}"
    if what.startswith("Invalid enum value"):
        names = get_args(FaultKind if key == "kind" else FaultConfig.__annotations__[key])
        return f"{given}, expected one of {', '.join(name for name in names if name)}"
    return f"{given}: {what}"


def _place(source: str, settings: Mapping[str, Any], number: int) -> str:
    """File, line and number of an entry, in the file that says it; entries are counted from 1."""
    path = Path(source)
    for _ in range(5):
        try:
            text = path.read_text(encoding="utf-8")
            said = tomllib.loads(text)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            break
        if "faults" in said or not isinstance(said.get("base"), str):
            lines = [n for n, line in enumerate(text.splitlines(), 1) if HEADER.match(line)]
            if said.get("faults") == settings["faults"] and number < len(lines):
                return f"{path}, line {lines[number]}: [[faults]] {number + 1}"
            break
        path = path.parent / said["base"]
    return f"{source}: [[faults]] {number + 1}"


__all__ = ["incomplete", "refused"]
