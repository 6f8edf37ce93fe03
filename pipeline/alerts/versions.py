"""Every version of the alert schema that lsst-alert-packet ships, under the id that its packets carry."""

from dataclasses import dataclass
from functools import cache
from typing import Final

from pipeline.alerts.read import schema_json
from schemas import alert_versions

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
    return tuple(AlertSchema(major * 100 + minor, f"{major}.{minor}", schema_json(major * 100 + minor))
                 for major, minor in alert_versions.packaged())


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
