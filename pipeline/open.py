"""URLs of sinks and stores to the backends themselves."""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.errors import InputError
from pipeline.ports import AlertSink, PromptArchive


def open_sink(url: str, *, headers: Mapping[str, str] | None = None) -> AlertSink:
    """The alert sink of `kafka://host:port/topic`, `file:folder/` or `memory:`; `headers` go with Kafka messages."""
    match url.partition(":"):
        case "memory", ":", "":
            from pipeline.sinks.memory import MemorySink
            return MemorySink()
        case "file", ":", folder if folder.strip("/"):
            from pipeline.sinks.files import FileSink
            return FileSink(_folder(url, folder))
        case "kafka", ":", rest if rest.startswith("//"):
            from pipeline.sinks.kafka import KafkaSink
            parts = urlsplit(url)
            topic = parts.path.strip("/")
            if not parts.netloc or not topic or "/" in topic:
                raise InputError(f"alert sink {url!r}: expected kafka://host:port/topic")
            return KafkaSink(parts.netloc, topic, headers=headers)
    raise InputError(f"alert sink {url!r}: expected kafka://host:port/topic, file:folder/ or memory:")


def open_store(url: str) -> PromptArchive:
    """The prompt store of `duckdb:path` or `memory:`."""
    match url.partition(":"):
        case "memory", ":", "":
            from pipeline.stores.memory import MemoryStore
            return MemoryStore()
        case "duckdb", ":", path if path:
            from pipeline.stores.duckdb import DuckDBStore
            if not Path(path).absolute().parent.is_dir():
                raise InputError(f"prompt store {url!r}: there is no folder {Path(path).absolute().parent}")
            return DuckDBStore(Path(path))
    raise InputError(f"prompt store {url!r}: expected duckdb:path or memory:")


def _folder(url: str, name: str) -> Path:
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"alert sink {url!r}: {error.strerror}") from error
    return folder
