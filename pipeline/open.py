"""URLs of sinks and stores to the backends themselves."""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.errors import InputError
from pipeline.ports import AlertSink, PromptArchive


def open_sink(url: str, *, headers: Mapping[str, str] | None = None, check: bool = False) -> AlertSink:
    """The alert sink of `kafka://host:port/topic`, `file:folder/` or `memory:`; `headers` go with Kafka messages.

    Options of a Kafka URL and its kinds of authentication: `pipeline.sinks.kafka_url`. With `check` InputError, within
    seconds, where the broker does not answer, refuses the user, or lacks the topic.
    """
    match url.partition(":"):
        case "memory", ":", "":
            from pipeline.sinks.memory import MemorySink
            return MemorySink()
        case "file", ":", folder if folder.strip("/"):
            from pipeline.sinks.files import FileSink
            return FileSink(_folder(url, folder))
        case ("kafka" | "kafka+tls" | "kafka+sasl" | "kafka+sasl+tls"), ":", rest if rest.startswith("//"):
            return _kafka(url, headers, check)
    raise InputError(f"alert sink {url!r}: expected kafka://host:port/topic, file:folder/ or memory:")


def topic_of(url: str) -> str | None:
    """The topic that a Kafka URL names; None for other sinks."""
    return urlsplit(url).path.strip("/") if url.partition(":")[0].partition("+")[0] == "kafka" else None


def _kafka(url: str, headers: Mapping[str, str] | None, check: bool) -> AlertSink:
    from pipeline.sinks.kafka import KafkaSink
    from pipeline.sinks.kafka_url import KafkaUrl

    to = KafkaUrl.parse(url, os.environ)
    sink = KafkaSink(to.servers, to.topic, headers=headers, settings=to.settings, key=to.key,
                     transactions=to.transactions, positions=to.positions)
    if check:
        sink.check()
    return sink


def open_store(url: str) -> PromptArchive:
    """The prompt store of `duckdb:path`, `postgresql://user@host:port/database?packets=FOLDER` or `memory:`."""
    match url.partition(":"):
        case "memory", ":", "":
            from pipeline.stores.memory import MemoryStore
            return MemoryStore()
        case "duckdb", ":", path if path:
            from pipeline.stores.duckdb import DuckDBStore
            if not Path(path).absolute().parent.is_dir():
                raise InputError(f"prompt store {url!r}: there is no folder {Path(path).absolute().parent}")
            return DuckDBStore(Path(path))
        case "postgresql", ":", rest if rest.startswith("//"):
            try:
                from pipeline.stores.postgres import PostgresStore
            except ImportError as error:
                raise InputError(f"prompt store {url!r}: install rubin-alert-twin[postgres] ({error})") from error
            return PostgresStore(url)
    raise InputError(f"prompt store {url!r}: expected duckdb:path, postgresql://... or memory:")


def _folder(url: str, name: str) -> Path:
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"alert sink {url!r}: {error.strerror}") from error
    return folder
