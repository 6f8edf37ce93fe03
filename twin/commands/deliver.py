"""`alert-twin deliver`: send what a prompt store's outbox still holds."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twin.commands import Commands


def add(commands: "Commands") -> None:
    """Declare it."""
    deliver = commands.add_parser("deliver", help="send what a prompt store's outbox still holds",
                                  description="For what a broker's outage or a crash left behind. To Kafka nothing is "
                                  "sent twice, whatever was sent before.")
    deliver.add_argument("store", help="duckdb:FILE")
    deliver.add_argument("sink", help="kafka://host:port/topic and its kinds, or file:FOLDER")
    deliver.set_defaults(call=_deliver)


def _deliver(options: argparse.Namespace) -> int:
    from twin.deliver import deliver_outbox

    print(deliver_outbox(options.store, options.sink))
    return 0
