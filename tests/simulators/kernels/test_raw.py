"""Kernels of the raw image against their plain forms."""

import numpy as np
import pytest

from simulators.kernels.raw import bleed, move_charge, read_out


def plain_move(image: np.ndarray, shift_x: np.ndarray, shift_y: np.ndarray) -> np.ndarray:
    across = 0.5 * shift_x[:, :-1] * (image[:, :-1] + image[:, 1:])
    up = 0.5 * shift_y[:-1] * (image[:-1] + image[1:])
    out = image.copy()
    out[:, :-1] += across
    out[:, 1:] -= across
    out[:-1] += up
    out[1:] -= up
    return out


def test_moving_charge_is_what_its_plain_form_gives_and_loses_none() -> None:
    rng = np.random.default_rng(3)
    image = rng.uniform(100, 1000, (37, 53)).astype(np.float32)
    shifts = [rng.normal(0, 0.01, image.shape).astype(np.float32) for _ in range(2)]
    moved = image.copy()
    move_charge(moved, *shifts)
    assert np.allclose(moved, plain_move(image.astype(float), *shifts), rtol=1e-5)
    assert moved.sum(dtype=float) == pytest.approx(image.sum(dtype=float), rel=1e-7)


def plain_read(charge: np.ndarray, cti: float, trap: float, level: float, release: float, prescan: int,
               wide: int) -> np.ndarray:
    """One row, packet after packet."""
    packets = np.zeros(wide)
    packets[prescan:prescan + len(charge)] = charge
    out, behind, held = np.zeros(wide), 0.0, 0.0
    for k, packet in enumerate(packets):
        lost = packet * cti * (k + 1)
        now = packet - lost + behind + held * release
        behind, held = lost, held * (1 - release)
        caught = min(max(trap * (1 - np.exp(-now / level)) - held, 0.0), now) if now > 0 else 0.0
        out[k], held = now - caught, held + caught
    return out


def test_reading_out_is_what_its_plain_form_gives() -> None:
    rng = np.random.default_rng(4)
    charge = rng.uniform(0, 50_000, (2, 3, 40)).astype(np.float32)
    out, zero = np.zeros((2, 3, 60), np.float32), np.zeros(2)
    cti, trap = np.array([1e-5, 2e-5]), np.array([30.0, 0.0])
    read_out(charge, cti, trap, 20_000.0, 0.1, zero, zero, 1.0, 5, out)
    for a in range(2):
        for j in range(3):
            assert np.allclose(out[a, j], plain_read(charge[a, j].astype(float), cti[a], trap[a], 2e4, 0.1, 5, 60),
                               rtol=1e-5, atol=1e-3)


def test_deferred_charge_comes_out_in_the_overscan() -> None:
    charge = np.full((1, 1, 100), 10_000.0, np.float32)
    out, zero = np.zeros((1, 1, 150), np.float32), np.zeros(1)
    read_out(charge, np.array([1e-4]), zero, 2e4, 0.1, zero, zero, 1.0, 10, out)
    assert out.sum(dtype=float) == pytest.approx(charge.sum(dtype=float), rel=1e-6)
    assert out[0, 0, 110] == pytest.approx(10_000.0 * 1e-4 * 110, rel=1e-5)


def test_the_output_bends_in_proportion_to_its_level() -> None:
    charge = np.full((1, 1, 4), 50_000.0, np.float32)
    out, zero = np.zeros((1, 1, 4), np.float32), np.zeros(1)
    read_out(charge, zero, zero, 2e4, 0.1, np.array([0.02]), zero, 1e9, 0, out)
    assert np.allclose(out, 50_000.0 * (1 - 0.01), rtol=1e-6)


def well(n: int) -> np.ndarray:
    return np.full(n, 100.0, np.float32)


def test_charge_bleeds_along_its_column_and_none_is_lost_inside() -> None:
    image = np.zeros((40, 3), np.float32)
    image[12, 1] = 950.0
    bleed(image, well(3), well(3), False)
    assert image.sum() == pytest.approx(950.0)
    assert image.max() <= 100.0
    assert np.flatnonzero(image[:, 1]).tolist() == list(range(7, 18))
    assert not image[:, [0, 2]].any()


def test_no_charge_crosses_the_middle_of_a_detector_that_has_an_implant() -> None:
    image = np.zeros((40, 1), np.float32)
    image[17, 0] = 1500.0
    stopped, free = image.copy(), image.copy()
    bleed(stopped, well(1), well(1), True)
    bleed(free, well(1), well(1), False)
    assert not stopped[20:].any()
    assert free[20:].any()
    assert stopped.sum() == pytest.approx(1500.0)     # what turned back at the middle stays on its side


def test_charge_that_reaches_the_border_leaves() -> None:
    image = np.zeros((20, 1), np.float32)
    image[2, 0] = 5000.0
    bleed(image, well(1), well(1), False)
    assert image.sum() == pytest.approx(20 * 100.0)
