"""How long the telescope takes from one visit to the next: mount, dome, rotator, optics, readout and filter changes.

    slew = max(mount + max(settle, open-loop optics), dome, rotator, readout) + closed-loop optics, or the filter change

The model and its constants are those of rubin_scheduler's KinemModel at 70 % of the mount's speed.
"""

from dataclasses import dataclass

import numpy as np

from simulators.kernels import pointing


@dataclass(frozen=True, slots=True)
class Kinematics:
    """Speeds [deg/s], accelerations [deg/s^2], jerks [deg/s^3; 0: unbounded] and delays [s].

    Sources: rubin_scheduler's kinem_model.py (`tma_movement(70)`, `rotator_movement(100)` and the defaults of the dome,
    the optics and the camera).
    """

    altitude: tuple[float, float, float] = (3.5, 3.5, 14.0)     # speed, acceleration, jerk of the mount
    azimuth: tuple[float, float, float] = (7.0, 7.0, 28.0)
    settle_s: float = 3.0
    open_loop_s_deg: float = 1.0 / 3.5     # seconds per degree of altitude, while the mount settles
    closed_loop_s: float = 36.0            # where altitude changes by `closed_loop_deg` and more
    closed_loop_deg: float = 9.0
    dome: tuple[float, float] = (1.75, 1.5)                     # speed in altitude and azimuth
    view_deg: float = 3.5                  # what stays within the slit needs no dome
    rotator: tuple[float, float, float] = (3.5, 1.0, 4.0)
    cable_deg: float = 250.0               # azimuth is within this of north, counted through
    altitude_deg: tuple[float, float] = (20.0, 86.5)
    readout_s: float = 3.07
    shutter_s: float = 1.0                 # of an exposure, opening and closing together
    band_change_s: float = 120.0
    change_while_slewing: bool = True      # the v2.0 baseline's gap at a change is 120 s

    def packed(self) -> np.ndarray:
        """What the kernels read, in radians and seconds."""
        rad = np.radians
        return np.array([*rad(self.altitude), *rad(self.azimuth), self.settle_s, np.degrees(self.open_loop_s_deg),
                         *rad(self.dome), rad(self.view_deg), rad(self.closed_loop_deg), self.closed_loop_s,
                         -rad(self.cable_deg), rad(self.cable_deg), *rad(self.rotator), self.band_change_s,
                         self.readout_s, float(self.change_while_slewing)])

    def visit_s(self, exposure_s: float, snaps: int) -> float:
        """From the shutter's first opening to its last closing."""
        return exposure_s + snaps * self.shutter_s + (snaps - 1) * self.readout_s

    def slower(self, factor: float) -> "Kinematics":
        """A telescope whose moves and delays take `factor` times as long; exposure and shutter stay."""
        def slow(motion: tuple[float, float, float]) -> tuple[float, float, float]:
            return motion[0] / factor, motion[1] / factor**2, motion[2] / factor**3

        return Kinematics(slow(self.altitude), slow(self.azimuth), self.settle_s * factor,
                          self.open_loop_s_deg * factor, self.closed_loop_s * factor, self.closed_loop_deg,
                          (self.dome[0] / factor, self.dome[1] / factor), self.view_deg, slow(self.rotator),
                          self.cable_deg, self.altitude_deg, self.readout_s * factor, self.shutter_s,
                          self.band_change_s * factor, self.change_while_slewing)


def slew_seconds(kinematics: Kinematics, start: tuple[float, float], end: tuple[float, float],
                 turn_deg: float = 0.0) -> float:
    """Seconds from one (altitude, azimuth) [deg] to another while the rotator turns; no readout, no filter change."""
    across = abs((end[1] - start[1] + 180.0) % 360.0 - 180.0)
    mount = kinematics.packed()
    moved = pointing.slew_s(np.radians(abs(end[0] - start[0])), np.radians(across), np.radians(across), mount)
    return float(max(moved, pointing.move_s(np.radians(abs(turn_deg)), *np.radians(kinematics.rotator))))
