"""What the commands that consume the alert stream have in common."""

from __future__ import annotations

import argparse
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.serve.consume import Tally
    from pipeline.serve.messages import Handler


def add_stream(parser: argparse.ArgumentParser, group: str) -> None:
    """The options that say which stream is read, and how."""
    parser.add_argument("--kafka", required=True, metavar="URL", help="kafka://host:port/topic, or "
                        "kafka+sasl+tls://user@host:port/topic and others; password in $ALERT_TWIN_KAFKA_PASSWORD")
    parser.add_argument("--group", default=group, help="consumer group, which remembers how far was read; "
                        "default: %(default)s")
    parser.add_argument("--dead-letters", metavar="URL", help="where unreadable messages go: file:folder/ or "
                        "kafka://host:port/topic; default: file:dead-letters/")
    parser.add_argument("--stop-when-idle", type=float, metavar="S", help="end when the topic's end was reached S "
                        "seconds ago; default: run until interrupted")


def run_consumer(options: argparse.Namespace, handler: Handler, *, default_dead: Path) -> Tally:
    """Consume until the end that the options ask for, or until told to end, which leaves nothing half done."""
    from pipeline.serve.consume import consume, open_dead_letters, open_stream

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    dead = open_dead_letters(options.dead_letters or f"file:{default_dead}/")
    told: list[int] = []
    before = {number: signal.signal(number, lambda number, _: told.append(number))
              for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        stream = open_stream(options.kafka, options.group)
        try:
            return consume(stream, handler, dead, stop_when_idle=options.stop_when_idle, stopped=lambda: bool(told))
        finally:
            stream.close()
    finally:
        dead.close()
        for number, handle in before.items():
            signal.signal(number, handle)
