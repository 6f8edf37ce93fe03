"""The alert packet: its version and the Avro record of lsst-alert-packet, put together from the prompt tables.

On the wire a packet is one zero byte, the schema id as a big-endian 32-bit integer, and the record without its schema.
"""

import struct
from typing import Any, Final

from schemas.table import ALERT_NAMESPACE, DIA_FORCED_SOURCE, DIA_OBJECT, DIA_SOURCE, MPC_ORBITS, SS_SOURCE

VERSION: Final = (11, 1)
SCHEMA_ID: Final = VERSION[0] * 100 + VERSION[1]
WIRE_HEADER: Final = struct.pack(">bi", 0, SCHEMA_ID)
NAMESPACE: Final = ALERT_NAMESPACE

CUTOUT_MIN: Final = 30         # pixels; packageAlerts.py
CUTOUT_MAX: Final = 102        # 10 deg/day for 30 s, and 40 pixels of PSF


def record() -> dict[str, Any]:
    """The alert's Avro schema, every record written out where it is first used."""
    def optional(kind: Any) -> dict[str, Any]:
        return {"type": ["null", kind], "default": None}

    def several(kind: Any) -> dict[str, Any]:
        return optional({"type": "array", "items": kind})

    fields: list[dict[str, Any]] = [
        {"name": "diaSourceId", "type": "long", "doc": "Identifier of the triggering DiaSource"},
        {"name": "observation_reason", **optional("string"),
         "doc": "Scheduler reason for the image containing this diaSource (RTN-097)."},
        {"name": "target_name", **optional("string"),
         "doc": "Scheduler target for the image containing this diaSource (RTN-097)."},
        {"name": "diaSource", "type": DIA_SOURCE.avro()},
        {"name": "prvDiaSources", **several(f"{NAMESPACE}.diaSource")},
        {"name": "prvDiaForcedSources", **several(DIA_FORCED_SOURCE.avro())},
        {"name": "diaObject", **optional(DIA_OBJECT.avro())},
        {"name": "ssSource", **optional(SS_SOURCE.avro())},
        {"name": "mpc_orbits", **optional(MPC_ORBITS.avro())},
        {"name": "cutoutDifference", **optional("bytes")},
        {"name": "cutoutScience", **optional("bytes")},
        {"name": "cutoutTemplate", **optional("bytes")},
    ]
    return {"type": "record", "namespace": NAMESPACE, "name": "alert", "doc": "Rubin Avro alert schema v11.1",
            "fields": fields}


def corner(centre: float, side: int) -> int:
    """First pixel, along one axis, of a cutout of `side` pixels: its pixel side // 2 is the centroid's.

    (afw's makeCenteredBox puts boxes of even side one pixel further where the centroid's fraction is below a half.)
    """
    return int((centre + 0.5) // 1) - side // 2
