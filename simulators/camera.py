"""Detectors: where they lie on the focal plane, their true WCS, and the pointing WCS an exposure arrives with."""

import numpy as np
from msgspec.structs import replace

from schemas.exposure import Visit
from schemas.wcs import Wcs
from simulators import focalplane
from simulators.config import CameraConfig, SimulationConfig
from simulators.streams import stream

MARGIN_PX = 40


def offset_px(camera: CameraConfig, detector: int) -> tuple[float, float]:
    """Centre of a detector in pixels from the boresight: LSSTCam's, or a square grid in the order of the list."""
    if detector not in camera.detectors:
        raise ValueError(f"detector must be one of {camera.detectors}, got {detector}")
    if camera.layout == "lsstcam":
        sensor = focalplane.sensor(detector)
        return sensor.x_mm / focalplane.PIXEL_MM, sensor.y_mm / focalplane.PIXEL_MM
    side = int(np.ceil(np.sqrt(len(camera.detectors))))
    rows = int(np.ceil(len(camera.detectors) / side))
    row, column = divmod(camera.detectors.index(detector), side)
    return ((column - (side - 1) / 2) * (camera.nx + camera.spacing_px),
            (row - (rows - 1) / 2) * (camera.ny + camera.spacing_px))


def as_built(camera: CameraConfig, detector: int) -> CameraConfig:
    """The camera with the gain, read noise, dark current and full well of one detector, where LSSTCam's are used."""
    if camera.layout == "square":
        return camera
    sensor = focalplane.sensor(detector)
    return replace(camera, gain=float(sensor.gain.mean()), read_noise=float(np.sqrt(np.mean(sensor.read_noise**2))),
                   dark=float(sensor.dark.mean()), full_well=float(sensor.full_well.mean()))


def field_radius_deg(config: SimulationConfig) -> float:
    """Half the side of the square that holds every detector of every visit, dithered and turned."""
    c = config.camera
    reach = max(np.hypot(abs(x) + c.nx / 2, abs(y) + c.ny / 2)
                for x, y in (offset_px(c, detector) for detector in c.detectors))
    return float(((reach + MARGIN_PX) * c.scale_arcsec + 2 * config.cadence.dither_arcsec) / 3600.0)


def from_plane(ra0: float, dec0: float, xi: np.ndarray, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RA, Dec [deg] of tangent-plane offsets [deg], xi to the East."""
    return Wcs((0.0, 0.0), (ra0, dec0), (1.0, 0.0, 0.0, 1.0)).sky(xi, eta)


def true_wcs(camera: CameraConfig, visit: Visit, detector: int, seed: int) -> Wcs:
    """TAN about the boresight, with the linear distortion that refraction and flexure leave in this visit."""
    strain = np.eye(2) + camera.linear_distortion * stream(seed, "distortion", visit.visit).normal(size=(2, 2))
    if camera.layout == "lsstcam":
        wcs = focalplane.wcs(detector, (camera.ny, camera.nx), visit.ra, visit.dec, visit.rotation,
                             camera.scale_arcsec)
        return Wcs(wcs.crpix, wcs.crval, _product(wcs.cd, strain), wcs.kind, wcs.distortion_x, wcs.distortion_y)
    ox, oy = offset_px(camera, detector)
    plain = Wcs.tangent(visit.ra, visit.dec, (camera.ny, camera.nx), scale_arcsec=camera.scale_arcsec,
                        rotation=visit.rotation)
    return Wcs((plain.crpix[0] - ox, plain.crpix[1] - oy), plain.crval, _product(plain.cd, strain))


def pointing_wcs(camera: CameraConfig, true: Wcs, visit: Visit, detector: int, seed: int) -> Wcs:
    """The true WCS displaced by up to the pointing error and turned about the detector's centre.

    A distortion stays as the design has it, in terms of the pixels: it is known, and only where it lies is not.
    """
    rng = stream(seed, "pointing error", visit.visit, detector)
    distance = camera.pointing_error_arcsec / camera.scale_arcsec * np.sqrt(rng.uniform())
    direction = rng.uniform(0, 2 * np.pi)
    turn = np.radians(camera.pointing_error_deg * rng.uniform(-1, 1))
    shift = distance * np.array([np.cos(direction), np.sin(direction)])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    centre = np.array([(camera.nx - 1) / 2, (camera.ny - 1) / 2])
    crpix = centre - rotation.T @ (centre + shift - np.array(true.crpix))
    pointing = Wcs((float(crpix[0]), float(crpix[1])), true.crval, _product(true.cd, rotation), true.kind,
                   true.distortion_x, true.distortion_y)
    return pointing.rounded()   # as cards hold it


def _product(cd: tuple[float, float, float, float], matrix: np.ndarray) -> tuple[float, float, float, float]:
    """A CD matrix after a linear map of the pixels."""
    a, b, c, d = (np.array(cd).reshape(2, 2) @ matrix).ravel().tolist()
    return a, b, c, d
