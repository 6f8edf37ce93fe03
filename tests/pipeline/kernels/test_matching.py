"""The kernels of a fit's stars against their plain forms."""

import numpy as np
import pytest
from scipy.signal import convolve2d

from pipeline.difference.kernel import basis
from pipeline.kernels import matching as kernels

STARS, COUNT, SIDE = 7, 6, 9


def given(seed: int) -> tuple[np.ndarray, ...]:
    """Functions, targets, models and weights of some stars, all of the size of 1."""
    rng = np.random.default_rng(seed)
    functions = rng.normal(size=(STARS, COUNT, SIDE**2)).astype(np.float32)
    target, model = rng.normal(1.0, 1.0, (2, STARS, SIDE**2)).astype(np.float32)
    weight = np.where(rng.random((STARS, SIDE**2)) < 0.1, 0, rng.uniform(0.5, 2.0, (STARS, SIDE**2))).astype(np.float32)
    return functions, target, model, weight


def slopes(stars: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    down, across = np.gradient(stars.reshape(len(stars), SIDE, SIDE).astype(float), axis=(1, 2))
    return across.reshape(stars.shape), down.reshape(stars.shape)


@pytest.mark.parametrize("half", [2, 3])
def test_stamps_are_convolved_with_every_function_of_a_basis(half: int) -> None:
    functions = basis((0.8, 1.5), (2, 1), half)
    stamps = np.random.default_rng(half).normal(size=(5, 17, 17)).astype(np.float32)
    found = functions.convolve(stamps)
    assert np.array_equal(found, functions.convolve(stamps, threads=2))
    for s in range(5):
        plain = [convolve2d(stamps[s], function, mode="valid").ravel() for function in functions.stamps()]
        assert np.allclose(found[s], plain, atol=2e-5)


def test_weights_are_sky_and_light_and_errors_of_the_model() -> None:
    rng = np.random.default_rng(1)
    light = rng.normal(3.0, 2.0, (STARS, SIDE**2)).astype(np.float32)
    ours, theirs = (rng.uniform(4.0, 6.0, light.shape) + part * light for part in (0.4, -0.1))
    good = rng.random(light.shape) < 0.9
    sky = [np.percentile(plane, 20.0, axis=1) for plane in (ours, theirs)]
    weight, least = np.empty_like(light), np.empty(STARS)
    for rows in ((0, 3), (3, STARS)):
        kernels.weigh(light, ours.astype(np.float32), theirs.astype(np.float32), good, *sky, 0.3, 0.05, 0.2, 0.1, SIDE,
                      *rows, weight, least)
    base = np.zeros(light.shape)
    for share, plane, level in zip((1.0, 0.3), (ours, theirs), sky, strict=True):
        slope = ((plane - level[:, None]) * light).sum(axis=1) / (light.astype(float)**2).sum(axis=1)
        base += share * (level[:, None] + np.maximum(slope, 0)[:, None] * np.maximum(light, 0))
    across, down = slopes(light)
    error = (0.05 * light) ** 2 + (0.2 * across) ** 2 + (0.1 * down) ** 2
    assert np.allclose(weight, good / (base + error), rtol=1e-4)
    assert np.allclose(least, base.min(axis=1), rtol=1e-5)


@pytest.mark.parametrize("factor", [0.0, 2.5])
def test_a_star_s_own_constant_and_factor_are_integrated_out(factor: float) -> None:
    functions, target, model, weight = given(2)
    prior = np.linspace(0.5, 3.0, STARS)
    normal, vector, mean = np.empty((STARS, COUNT, COUNT)), np.empty((STARS, COUNT)), np.empty((STARS, COUNT + 1))
    for rows in ((0, 4), (4, STARS)):
        kernels.normals(functions, target, model, weight, prior, factor, *rows, normal, vector, mean)
    for s in range(STARS):      # the whole system with both unknowns in it, which are then eliminated
        own = [np.ones(SIDE**2)] + ([model[s].astype(float)] if factor else [])
        design = np.array([*functions[s].astype(float), *own])
        whole = (design * weight[s]) @ design.T + np.diag([0.0] * COUNT + [prior[s]] + [factor] * (len(own) - 1))
        right = (design * weight[s]) @ target[s]
        gone = whole[:COUNT, COUNT:] @ np.linalg.inv(whole[COUNT:, COUNT:])
        assert np.allclose(normal[s], whole[:COUNT, :COUNT] - gone @ whole[COUNT:, :COUNT], atol=2e-4)
        assert np.allclose(vector[s], right[:COUNT] - gone @ right[COUNT:], atol=2e-4)
        total = weight[s].sum() + prior[s]
        assert np.allclose(mean[s], [*(functions[s] * weight[s]).sum(axis=1), (target[s] * weight[s]).sum()] / total,
                           atol=1e-5)


def test_stars_are_sums_of_their_functions() -> None:
    functions, target, _, _ = given(3)
    coefficients = np.random.default_rng(4).normal(size=(STARS, COUNT)).astype(np.float32)
    out = np.empty_like(target)
    kernels.sums(functions, coefficients, 0, 2, out)
    kernels.sums(functions, coefficients, 2, STARS, out)
    assert np.allclose(out, np.einsum("snp,sn->sp", functions, coefficients), atol=1e-5)


def test_what_is_left_of_a_star_asks_for_a_flux_and_a_shift() -> None:
    _, target, model, weight = given(5)
    level, constant = np.linspace(-1, 1, STARS), np.linspace(0.2, 0.5, STARS)
    normal, vector, chi2 = np.empty((STARS, 3, 3)), np.empty((STARS, 3)), np.empty(STARS)
    for rows in ((0, 1), (1, STARS)):
        kernels.misfit(target, model, level, constant, weight, 1.2, SIDE, *rows, normal, vector, chi2)
    across, down = slopes(1.2 * model)
    design = np.stack([1.2 * model.astype(float), -across, -down], axis=1)
    left = target - level[:, None] - 1.2 * (model - constant[:, None])
    assert np.allclose(normal, np.einsum("sap,sp,sbp->sab", design, weight, design), rtol=1e-5, atol=1e-4)
    assert np.allclose(vector, np.einsum("sap,sp,sp->sa", design, weight, left), rtol=1e-4, atol=1e-4)
    assert np.allclose(chi2, (weight * left**2).sum(axis=1), rtol=1e-5)
