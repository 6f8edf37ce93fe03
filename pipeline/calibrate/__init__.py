"""Calibration of one exposure: background, PSF, WCS, zeropoint and noise."""

from pipeline.calibrate.frame import calibrate

__all__ = ["calibrate"]
