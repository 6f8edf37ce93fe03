"""Kernels of signature removal against their plain forms."""

import numpy as np

from pipeline.kernels.signature import bridge, linearise, restore, take_back


def test_a_table_is_interpolated_and_ends_at_its_ends() -> None:
    table = np.array([[0.0, 5.0, 20.0], [1.0, 1.0, 1.0]])
    levels = np.array([-50.0, 0.0, 50.0, 100.0, 150.0, 200.0, 900.0], np.float32)
    signal = np.stack([levels, levels])[:, None, :].copy()
    linearise(signal, table, 100.0)
    for a in range(2):
        assert np.allclose(signal[a, 0], levels + np.interp(levels, [0.0, 100.0, 200.0], table[a]), rtol=1e-6)


def plain_back(observed: np.ndarray, estimate: np.ndarray, potential: np.ndarray) -> np.ndarray:
    across = 0.5 * (estimate[:, 1:] + estimate[:, :-1]) * np.diff(potential, axis=1)
    up = 0.5 * (estimate[1:] + estimate[:-1]) * np.diff(potential, axis=0)
    divergence = np.zeros_like(observed)
    divergence[:, :-1] += across
    divergence[:, 1:] -= across
    divergence[:-1] += up
    divergence[1:] -= up
    return observed - 0.5 * divergence


def test_taking_charge_back_is_what_its_plain_form_gives() -> None:
    rng = np.random.default_rng(2)
    observed, estimate, potential = (rng.uniform(1, 2, (23, 31)).astype(np.float32) for _ in range(3))
    out = np.empty_like(observed)
    take_back(observed, estimate, potential, out)
    assert np.allclose(out, plain_back(observed, estimate, potential), rtol=1e-5)


def test_bad_pixels_are_bridged_along_rows() -> None:
    image = np.array([[1, 9, 9, 4], [9, 2, 3, 9], [9, 9, 9, 9]], np.float32)
    bad = image == 9
    bridge(image, bad)
    assert np.allclose(image, [[1, 2, 3, 4], [2, 2, 3, 3], [0, 0, 0, 0]])


def test_charge_is_restored_packet_by_packet() -> None:
    """The plain form of the way out is inverted: proportional loss, then a trap of 30 electrons."""
    rng = np.random.default_rng(5)
    charge, prescan, cti, trap, level, release = rng.uniform(0, 80_000, 60), 4, 2e-5, 30.0, 2e4, 0.1
    packets = np.concatenate([np.zeros(prescan), charge])
    signal, behind, held = np.zeros((1, 1, 80), np.float32), 0.0, 0.0
    for k, packet in enumerate(packets):
        lost = packet * cti * (k + 1)
        now = packet - lost + behind + held * release
        behind, held = lost, held * (1 - release)
        caught = max(trap * (1 - np.exp(-now / level)) - held, 0.0)
        signal[0, 0, k], held = now - caught, held + caught
    assert np.abs(signal[0, 0, prescan:64] - charge).max() > 20.0
    out = np.empty((1, 1, 60), np.float32)
    restore(signal, np.array([cti]), np.array([trap]), np.array([level]), np.array([release]), prescan, out)
    assert np.abs(out[0, 0] - charge).max() < 0.05
