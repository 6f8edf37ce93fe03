"""Image differencing: the template matched to the science image, subtracted, and the noise whitened."""

from pipeline.difference.engine import subtract

__all__ = ["subtract"]
