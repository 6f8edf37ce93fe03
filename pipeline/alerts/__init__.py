"""Alert packets: writing them as Rubin's brokers receive them, and reading any packaged version."""

from pipeline.alerts.package import package
from pipeline.alerts.read import read_cutout, read_packet, read_packets
from pipeline.alerts.stamps import Stamp

__all__ = ["Stamp", "package", "read_cutout", "read_packet", "read_packets"]
