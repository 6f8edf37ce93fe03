"""Raw exposures of known scenes, their signature removal, and how far the pixels are from what they should be."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from pipeline.calibrate.signature import Removed, remove_signature
from pipeline.pixel_config import SignatureConfig
from schemas.exposure import Visit
from schemas.raw import Calibrations
from schemas.wcs import Wcs
from simulators import focalplane, raw
from simulators.config import ArtifactConfig, CameraConfig, RawConfig, SimulationConfig
from simulators.raw import Drawn

EFFECTS = tuple(name for name in RawConfig.__struct_fields__ if name != "calibration_frames")
# no cosmic rays; defects so many that a small detector has some, and all of them listed
QUIET = ArtifactConfig(cosmic_rays=0.0, streaks=0.0, glints=0.0, unknown_pixels=0.0, bad_columns=400.0,
                       bad_pixels=6000.0)
LEVELS = 14


@dataclass(frozen=True, slots=True)
class Passed:
    """A scene that went through a camera and its signature's removal."""

    scene: np.ndarray          # (ny, nx) electrons of light as it fell, without noise
    expected_noise: np.ndarray # (ny, nx) of the flattened image [electrons]
    drawn: Drawn
    removed: Removed
    calibrations: Calibrations

    @property
    def electrons(self) -> np.ndarray:
        """The image in electrons of the mean gain."""
        return self.removed.exposure.image * np.float32(self.calibrations.gain.mean())

    @property
    def pulls(self) -> np.ndarray:
        """Deviations from the scene over their noise."""
        return (self.electrons - self.scene) / self.expected_noise

    @property
    def good(self) -> np.ndarray:
        """Pixels that no mask plane takes."""
        return self.removed.exposure.mask == 0

    def bins(self, smallest: int = 2000) -> np.ndarray:
        """(n, 4) mean level, mean and rms of pulls, and number of pixels, in bins of the scene's level."""
        edges = np.geomspace(self.scene.min() * 0.999, self.scene.max() * 1.001, LEVELS + 1)
        index = np.digitize(self.scene, edges) - 1
        rows = []
        for k in range(LEVELS):
            here = self.good & (index == k)
            if np.count_nonzero(here) >= smallest:
                pull = self.pulls[here]
                rows.append((self.scene[here].mean(), pull.mean(), pull.std(), pull.size))
        return np.array(rows)


def settings(effects: Iterable[str], *, select: str = "R22_S11", shape: tuple[int, int] = (512, 512),
             frames: int = 0) -> SimulationConfig:
    """A raw camera of one detector with these effects alone."""
    here = set(effects)
    effects_on = RawConfig(**{name: name in here for name in EFFECTS}, calibration_frames=frames)
    camera = CameraConfig(layout="lsstcam", product="raw", select=(select,), ny=shape[0], nx=shape[1], raw=effects_on)
    return SimulationConfig(camera=camera, artifacts=QUIET)


def without(config: SimulationConfig, *effects: str) -> SimulationConfig:
    """The settings without effects."""
    camera = config.camera
    return replace(config, camera=replace(camera, raw=replace(camera.raw, **dict.fromkeys(effects, False))))


def patches(config: SimulationConfig, sky: float, seed: int = 1, *, bright: float = 0.35, side: int = 16) -> np.ndarray:
    """(ny, nx) electrons: sky, and square patches of levels up to 0.8 of the smallest full well."""
    c, rng = config.camera, np.random.default_rng(seed)
    full = 0.8 * focalplane.sensor(c.detectors[0]).full_well.min()
    rows, columns = c.ny // side + 1, c.nx // side + 1
    levels = np.geomspace(sky, full, LEVELS)[rng.integers(0, LEVELS, (rows, columns))]
    levels = np.where(rng.uniform(size=levels.shape) < bright, levels, sky)
    return np.kron(levels, np.ones((side, side)))[: c.ny, : c.nx]


def passed(config: SimulationConfig, scene: np.ndarray, sky: float, *, band: str = "r", seed: int = 1,
           signature: SignatureConfig | None = None, known: SimulationConfig | None = None) -> Passed:
    """A scene taken raw and its signature removed; `known` are the settings that calibrations are made of."""
    c = config.camera
    detector, wcs = c.detectors[0], Wcs.tangent(0.0, 0.0, (c.ny, c.nx))
    visit = Visit(seed, band, 0.0, 0.0, 0.0, 60000.0, 30.0)
    drawn = raw.record(scene, sky, config, visit, detector, seed, wcs, None, 30.0)   # type: ignore[arg-type]  # no glint
    calibrations = raw.calibrations(known or config, detector, band)
    removed = remove_signature(raw.exposed(drawn, config, visit, detector, wcs), calibrations,
                               signature or SignatureConfig())
    return Passed(scene, _noise(config, scene, sky, band), drawn, removed, calibrations)


def _noise(config: SimulationConfig, scene: np.ndarray, sky: float, band: str) -> np.ndarray:
    """Photons, dark current, read noise and digits, over the response."""
    c = config.camera
    detector, sensor = c.detectors[0], focalplane.sensor(c.detectors[0])
    here, readout = raw.response(config, detector, band), sensor.readout(c.ny, c.nx)
    light = scene if here.fringe is None else scene + sky * here.fringe
    dark = here.dark * (30.0 + config.cadence.readout_s)
    read = readout.spread(sensor.read_noise) if c.raw.read_noise else np.zeros(scene.shape)
    return np.sqrt(light * here.flat + dark + read**2 + readout.spread(sensor.gain) ** 2 / 12) / here.flat
