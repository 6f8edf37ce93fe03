"""Subcommands of services, a module each: `add(commands)` declares one, and imports what it runs when it runs."""

from argparse import ArgumentTypeError
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, _SubParsersAction

    Commands = _SubParsersAction[ArgumentParser]


def port(text: str) -> int:
    """A TCP port on the command line; 0 takes a free one."""
    if not (text.isdecimal() and int(text) <= 65535):
        raise ArgumentTypeError(f"expected 0 to 65535, got {text!r}")
    return int(text)


def add_all(commands: "Commands") -> None:
    """Declare all of them."""
    from twin.commands import (
        archive,
        batch,
        counts,
        deliver,
        fidelity,
        filter,
        packets,
        ppdb,
        resume,
        schemas,
        stream,
        sweep,
        watch,
    )

    for command in (counts, fidelity, sweep, stream, watch, resume, packets, deliver, archive, filter, schemas, batch,
                    ppdb):
        command.add(commands)
