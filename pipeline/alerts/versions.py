"""Every version of the alert schema that lsst-alert-packet ships, under the id that its packets carry."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from pipeline.alerts.read import plain, schema_of

SUBJECT: Final = "alert-packet"                  # holds all versions (syncAllSchemasToRegistry.py)
TOPIC_SUBJECT: Final = "lsst-alerts-v{}-value"   # of one version, as TopicNameStrategy calls it


@dataclass(frozen=True, slots=True)
class AlertSchema:
    """One version."""

    id: int                # int(f"{major}{minor:02d}"): 1101
    version: str           # "11.1"
    text: str              # Avro schema as JSON, every record written out where it is first used


@cache
def packaged() -> tuple[AlertSchema, ...]:
    """All of them, oldest first."""
    spec = find_spec("lsst.alert.packet")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("lsst-alert-packet is not installed")
    numbers = sorted((int(path.parts[-3]), int(path.parts[-2]))
                     for path in (Path(spec.origin).parent / "schema").glob("[0-9]*/[0-9]*/lsst.v*.alert.avsc"))
    return tuple(AlertSchema(major * 100 + minor, f"{major}.{minor}",
                             json.dumps(plain(schema_of(major * 100 + minor)))) for major, minor in numbers)


@dataclass(frozen=True, slots=True)
class SubjectVersion:
    """A schema under a subject of a registry."""

    subject: str
    number: int            # 1, 2, ... within the subject
    schema: AlertSchema


@cache
def subjects() -> tuple[SubjectVersion, ...]:
    """What a registry of alert schemas holds: all versions under one subject, and each under one of its own."""
    return (*(SubjectVersion(SUBJECT, number, schema) for number, schema in enumerate(packaged(), 1)),
            *(SubjectVersion(TOPIC_SUBJECT.format(schema.version), 1, schema) for schema in packaged()))
