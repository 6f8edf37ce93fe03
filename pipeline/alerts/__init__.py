"""Alert packets: writing them as Rubin's brokers receive them, and reading any packaged version."""

from pipeline.alerts.package import package

__all__ = ["package"]
