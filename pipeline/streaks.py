"""Streaks: satellites that cross the detector.

Significance, sampled every few pixels, votes for straight lines (a Hough transform); a line counts when a large share
of its way across the detector is bright, so neither stars in a row nor an asteroid's trail makes one. The line is then
fitted, its profile measured, and the whole line masked at that width, as the real system does.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.kernels import lines
from pipeline.pixel_config import DetectConfig
from schemas import mask as planes

STEP: Final = 4                # pixels between samples (the real system bins by 4)
LOW: Final = 2.5               # significance of a bright sample
TURN: Final = 1.5              # samples a line's end moves between two trial angles
SHARE: Final = 0.4             # of the way across the detector that must be bright
MAX_STREAKS: Final = 10        # (maxFitIter)
MAX_WIDTH: Final = 100         # [pixel] (maxStreakWidth)
EDGE_SNR: Final = 2.0          # a streak ends where its profile falls below so many sigmas of the profile (nSigmaMask)


@dataclass(frozen=True, slots=True)
class Streak:
    """A straight line: the points with x cos(angle) + y sin(angle) = distance, and how far it reaches to each side."""

    angle: float               # of its normal [rad]
    distance: float            # [pixel] from the first pixel
    half_width: float          # [pixel]


def find(significance: np.ndarray, usable: np.ndarray, config: DetectConfig) -> list[Streak]:
    """Streaks of positive flux, brightest first."""
    ny, nx = significance.shape
    sample = significance[STEP // 2::STEP, STEP // 2::STEP]
    y, x = np.nonzero((sample > LOW) & usable[STEP // 2::STEP, STEP // 2::STEP])
    x, y = x * STEP + STEP // 2, y * STEP + STEP // 2
    streaks: list[Streak] = []
    for _ in range(MAX_STREAKS):
        line = _strongest(x, y, (ny, nx), config.streak_min_length)
        if line is None:
            break
        line = _fitted(x, y, *line)
        if _share(significance, usable, *line) < SHARE:
            break
        streak = _measured(significance, usable, *line)
        streaks.append(streak)
        far = np.abs(x * np.cos(streak.angle) + y * np.sin(streak.angle) - streak.distance)
        keep = far > streak.half_width + 2 * STEP
        x, y = x[keep], y[keep]
    return streaks


def mark(streaks: list[Streak], bits: np.ndarray) -> None:
    """Set STREAK in a mask on the pixels of streaks, along their full lines, in place."""
    for streak in streaks:
        lines.mark(bits, streak.angle, streak.distance, streak.half_width, planes.STREAK)


def _strongest(x: np.ndarray, y: np.ndarray, shape: tuple[int, int], min_length: float
               ) -> tuple[float, float] | None:
    """The line (angle of normal, distance) with most bright samples, if they are enough for its length."""
    if len(x) < min_length / STEP * SHARE:
        return None
    diagonal = float(np.hypot(*shape))
    cell = 2.0 * STEP
    n_angles = int(np.pi / (TURN * STEP / (diagonal / 2)))
    angles = np.arange(n_angles) * np.pi / n_angles
    n_cells = int(2 * diagonal / cell) + 3
    turn, at, _ = lines.strongest(np.ascontiguousarray(x), np.ascontiguousarray(y), np.cos(angles), np.sin(angles),
                                  diagonal, cell, n_cells)
    best = (float(angles[turn]), float((at + 1) * cell - diagonal)) if turn >= 0 else None
    if best is None:
        return None
    length = chord(best[0], best[1], shape)
    # samples on a line one significance beam wide: a point source is bright over about STEP pixels across
    enough = max(length, min_length) / STEP * SHARE
    along = np.unique(np.floor((y * np.cos(best[0]) - x * np.sin(best[0])) / STEP)[
        np.abs(x * np.cos(best[0]) + y * np.sin(best[0]) - best[1]) < cell])
    return best if len(along) > enough and length >= min_length else None


def chord(angle: float, distance: float, shape: tuple[int, int]) -> float:
    """Length of a line inside an array [pixel]."""
    c, s = np.cos(angle), np.sin(angle)
    low, high = -np.inf, np.inf
    for start, slope, end in ((distance * c, -s, shape[1] - 1.0), (distance * s, c, shape[0] - 1.0)):
        if abs(slope) < 1e-12:
            if not 0 <= start <= end:
                return 0.0
            continue
        a, b = sorted(((0 - start) / slope, (end - start) / slope))
        low, high = max(low, a), min(high, b)
    return float(max(high - low, 0.0))


def _fitted(x: np.ndarray, y: np.ndarray, angle: float, distance: float) -> tuple[float, float]:
    """The line through the bright samples near a first guess, by total least squares, twice."""
    for reach in (3.0 * STEP, 2.5 * STEP):
        near = np.abs(x * np.cos(angle) + y * np.sin(angle) - distance) < reach
        if near.sum() < 10:
            break
        px, py = x[near].astype(float), y[near].astype(float)
        dx, dy = px - px.mean(), py - py.mean()
        along = 0.5 * np.arctan2(2 * (dx * dy).sum(), (dx * dx - dy * dy).sum())
        angle = float(along + np.pi / 2)
        distance = float(px.mean() * np.cos(angle) + py.mean() * np.sin(angle))
    return angle, distance


def _share(significance: np.ndarray, usable: np.ndarray, angle: float, distance: float) -> float:
    """How much of a line's usable way across the detector is bright."""
    shape = significance.shape
    steps = np.arange(-np.hypot(*shape), np.hypot(*shape), STEP)
    u = np.rint(distance * np.cos(angle) - steps * np.sin(angle)).astype(int)
    v = np.rint(distance * np.sin(angle) + steps * np.cos(angle)).astype(int)
    on = (u >= 0) & (u < shape[1]) & (v >= 0) & (v < shape[0])
    u, v = u[on], v[on]
    good = usable[v, u]
    return float(np.mean(significance[v, u][good] > LOW)) if good.any() else 0.0


def _measured(significance: np.ndarray, usable: np.ndarray, angle: float, distance: float) -> Streak:
    """The streak with the width that its profile across has."""
    sums = lines.across(significance, usable, angle, distance, float(np.hypot(*significance.shape)), 2.0, MAX_WIDTH,
                        -5.0, 10.0)
    count = np.maximum(sums[:, 1], 1)
    profile = sums[:, 0] / count
    # significance is correlated over about four pixels along the line
    noise = np.sqrt(2.0 / count)
    bright = profile > np.maximum(EDGE_SNR * noise, 0.3)
    half = 1
    while half < MAX_WIDTH and (bright[MAX_WIDTH + half] or bright[MAX_WIDTH - half]):
        half += 1
    return Streak(angle, distance, float(half + 1))
