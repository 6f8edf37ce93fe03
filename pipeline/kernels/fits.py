"""Least squares on small windows: point sources, pairs of lobes, and trails.

A PSF is given by quintic spline coefficients, so that it can be put anywhere between pixels.

A window of pixels around each source is copied once; its weights are inverse variances smoothed over 5x5 pixels, so
that a variance plane that follows the noise of its own pixels does not pull the flux; errors come from the variance
as it is (the sandwich A^-1 B A^-1). Every kernel returns one row of numbers per source.
"""

import math

import numba
import numpy as np

SMOOTH = 2        # half side of the box over which variances are smoothed into weights [pixel]

_FINE = 64        # entries of the table per sigma: cubics between them are right to 1e-9
_FAR = 7          # [sigma] where it ends
_AT = np.arange(_FINE * _FAR + 2) / _FINE
_DENSITY = np.exp(-0.5 * _AT**2) / math.sqrt(2.0 * math.pi)
_SHARE = np.array([0.5 * math.erf(t / math.sqrt(2.0)) for t in _AT])


@numba.njit(cache=True, error_model="numpy")
def normal(t):  # type: ignore[no-untyped-def]  # compiled, floats only
    """The normal distribution's density at t, and its integral from 0 to t."""
    size = abs(t)
    if size >= _FAR:
        return 0.0, math.copysign(0.5, t)
    i = int(size * _FINE)
    h = 1.0 / _FINE
    s = size * _FINE - i
    density, following = _DENSITY[i], _DENSITY[i + 1]
    a, b = (1.0 + 2.0 * s) * (1.0 - s) * (1.0 - s), s * s * (3.0 - 2.0 * s)
    c, d = h * s * (1.0 - s) * (1.0 - s), h * s * s * (s - 1.0)
    share = a * _SHARE[i] + b * _SHARE[i + 1] + c * density + d * following
    value = a * density + b * following - c * i * h * density - d * (i + 1) * h * following
    return value, math.copysign(share, t)


@numba.njit(cache=True, error_model="numpy")
def spline(t, weights, slopes):  # type: ignore[no-untyped-def]  # compiled, floats and arrays only
    """Weights of the six coefficients -2 .. 3 about a point t in [0, 1] beyond coefficient 0, and their derivatives."""
    for k in range(6):
        x = t - (k - 2)
        sign = 1.0
        if x < 0.0:
            x, sign = -x, -1.0
        if x < 1.0:
            weights[k] = 0.55 + x * x * (-0.5 + x * x * (0.25 - x / 12.0))
            slopes[k] = sign * x * (-1.0 + x * x * (1.0 - x * 5.0 / 12.0))
        elif x < 2.0:
            weights[k] = 0.425 + x * (0.625 + x * (-1.75 + x * (1.25 + x * (-0.375 + x / 24.0))))
            slopes[k] = sign * (0.625 + x * (-3.5 + x * (3.75 + x * (-1.5 + x * 5.0 / 24.0))))
        elif x < 3.0:
            y = 3.0 - x
            weights[k] = y**5 / 120.0
            slopes[k] = -sign * y**4 / 24.0
        else:
            weights[k] = slopes[k] = 0.0


@numba.njit(cache=True, error_model="numpy")
def place(coefficients, x, y, left, low, model, model_x, model_y, rows, rows_x):  # type: ignore[no-untyped-def]
    """Fill `model` with the PSF centred on (x, y), and its derivatives by x and y; pixel [0, 0] is (left, low).

    coefficients : (m, m) of the centred stamp, with a border of zeros of at least 3; rows, rows_x : (m, nx) scratch.
    """
    m = coefficients.shape[0]
    ny = model.shape[0]
    weights, slopes = np.empty(6), np.empty(6)
    down = low - math.floor(y) + m // 2 - 3         # first coefficient of the window's first row
    top, bottom = max(down, 0), min(down + ny + 5, m)
    whole = math.floor(x)
    spline(1.0 - (x - whole), weights, slopes)
    base = left - whole + m // 2 - 3
    for r in range(top, bottom):
        along(coefficients[r], base, weights, slopes, rows[r], rows_x[r])
    spline(1.0 - (y - math.floor(y)), weights, slopes)
    for r in range(ny):
        model[r] = 0.0
        model_x[r] = 0.0
        model_y[r] = 0.0
        for k in range(6):
            if 0 <= down + r + k < m:
                add_line(rows[down + r + k], rows_x[down + r + k], weights[k], slopes[k], model[r], model_x[r],
                         model_y[r])


@numba.njit(cache=True, error_model="numpy")
def along(line, base, weights, slopes, out, slope):  # type: ignore[no-untyped-def]  # compiled, arrays only
    """Fill `out` and `slope` with a row of the PSF: six coefficients of `line` each, the first from `base` on."""
    n, m = out.shape[0], line.shape[0]
    if base >= 0 and base + n + 5 <= m:
        six = line[base:base + n + 5]
        for i in range(n):
            out[i] = (weights[0] * six[i] + weights[1] * six[i + 1] + weights[2] * six[i + 2] + weights[3] * six[i + 3]
                      + weights[4] * six[i + 4] + weights[5] * six[i + 5])
            slope[i] = -(slopes[0] * six[i] + slopes[1] * six[i + 1] + slopes[2] * six[i + 2] + slopes[3] * six[i + 3]
                         + slopes[4] * six[i + 4] + slopes[5] * six[i + 5])
        return
    for i in range(n):
        out[i] = slope[i] = 0.0
        for k in range(6):
            if 0 <= base + i + k < m:
                out[i] += weights[k] * line[base + i + k]
                slope[i] -= slopes[k] * line[base + i + k]


@numba.njit(cache=True, error_model="numpy")
def add_line(row, row_x, weight, slope, model, model_x, model_y):  # type: ignore[no-untyped-def]  # compiled
    """Add a row of coefficients to a row of the model and of its derivatives."""
    for i in range(model.shape[0]):
        model[i] += weight * row[i]
        model_x[i] += weight * row_x[i]
        model_y[i] -= slope * row[i]


@numba.njit(cache=True, error_model="numpy")
def blend(basis, terms, coefficients):  # type: ignore[no-untyped-def]  # compiled, arrays only
    """Fill `coefficients` with the sum of a basis (k, m, m) times terms (k,)."""
    coefficients[:] = 0.0
    for k in range(basis.shape[0]):
        for r in range(coefficients.shape[0]):
            for i in range(coefficients.shape[1]):
                coefficients[r, i] += terms[k] * basis[k, r, i]


@numba.njit(cache=True, error_model="numpy")
def smooth(noise, weight):  # type: ignore[no-untyped-def]  # compiled, arrays only
    """Fill `weight` with 1 over the mean positive variance within SMOOTH rows and columns, where it is positive."""
    ny, nx = noise.shape
    total, count = np.empty(nx), np.empty(nx)
    for r in range(ny):
        total[:] = 0.0
        count[:] = 0.0
        for q in range(max(r - SMOOTH, 0), min(r + SMOOTH + 1, ny)):
            for i in range(nx):
                total[i] += noise[q, i]
                count[i] += 1.0 if noise[q, i] > 0.0 else 0.0
        for i in range(nx):
            if noise[r, i] > 0.0:
                above, n = 0.0, 0.0
                for p in range(max(i - SMOOTH, 0), min(i + SMOOTH + 1, nx)):
                    above += total[p]
                    n += count[p]
                weight[r, i] = n / above


@numba.njit(cache=True, error_model="numpy")
def load(image, variance, mask, bad, labels, label, left, low, data, noise, weight):  # type: ignore[no-untyped-def]
    """Copy a window: data, variance, and smoothed inverse variance (0 on unusable pixels). True if it was cut off.

    Unusable: off the image, a bit of `bad` in the mask, no positive finite variance, or in the footprint of another
    source (`label` > 0 and the pixel's label is another).
    """
    ny, nx = image.shape
    ly, lx = labels.shape
    cut = False
    for r in range(data.shape[0]):
        y = low + r
        for i in range(data.shape[1]):
            x = left + i
            data[r, i] = noise[r, i] = weight[r, i] = 0.0
            if not (0 <= x < nx and 0 <= y < ny):
                cut = True
                continue
            v, d = variance[y, x], image[y, x]
            other = label > 0 and y < ly and x < lx and labels[y, x] > 0 and labels[y, x] != label
            if (mask[y, x] & bad) == 0 and v > 0.0 and math.isfinite(v) and math.isfinite(d) and not other:
                data[r, i], noise[r, i] = d, v
    smooth(noise, weight)
    return cut


@numba.njit(cache=True, error_model="numpy")
def solve(matrix, vector, n):  # type: ignore[no-untyped-def]  # compiled, floats and arrays only
    """Solve n rows of a symmetric system in place (into `vector`); False where it is not positive."""
    for i in range(n):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            if i == j:
                if not total > 1e-14 * abs(matrix[i, i]):
                    return False
                matrix[i, i] = math.sqrt(total)
            else:
                matrix[i, j] = total / matrix[j, j]
    for i in range(n):
        for k in range(i):
            vector[i] -= matrix[i, k] * vector[k]
        vector[i] /= matrix[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            vector[i] -= matrix[k, i] * vector[k]
        vector[i] /= matrix[i, i]
    return True


@numba.njit(cache=True, error_model="numpy")
def sandwich(matrix, middle, out, inverse, vector, n):  # type: ignore[no-untyped-def]  # compiled, arrays only
    """Fill `out` with matrix^-1 middle matrix^-1, and `inverse`; False where the matrix is not positive."""
    for j in range(n):
        for a in range(n):
            vector[a] = 1.0 if a == j else 0.0
            for b in range(n):
                out[a, b] = matrix[a, b]
        if not solve(out, vector, n):
            return False
        for a in range(n):
            inverse[a, j] = vector[a]
    for a in range(n):
        for b in range(n):
            total = 0.0
            for k in range(n):
                for q in range(n):
                    total += inverse[a, k] * middle[k, q] * inverse[q, b]
            out[a, b] = total
    return True


# Columns of what `points` returns.
FLUX, FLUX_VARIANCE, X, Y, XX, YY, XY, CHI2, NDATA, LNL, FAILED, CUT, COVERED = range(13)


@numba.njit("f8[:,::1](f4[:,::1], f4[:,::1], i4[:,::1], i8, i4[:,::1], i4[::1], "
            "f8[:,:,::1], f8[:,::1], f8[::1], f8[::1], i8, i8, f8)", cache=True, error_model="numpy")
def points(image, variance, mask, bad, labels, label, basis, terms, x, y, half, iterations, reach):  # type: ignore[no-untyped-def]
    """Flux of point sources at given positions, or with `iterations` > 0 flux and position together.

    Parameters
    ----------
    image, variance, mask : (ny, nx)
    bad : int
        Mask bits of pixels that take no part.
    labels, label : (ny, nx) or (1, 1), (n,)
        Footprints, and each source's own; 0 to use every pixel.
    basis, terms : (k, m, m), (n, k)
        Spline coefficients of the PSF's basis, and what each source's PSF takes of them.
    x, y : (n,)
        Positions, or starts.
    half : int
        Half side of the window.
    reach : float
        A position farther from its start is a failure; the start is kept.

    Returns
    -------
    (n, 13) : columns as named above; FLUX is NaN without usable pixels. COVERED is the fraction of sum(P^2) on usable
    pixels. The error of the flux is that at a fixed position.
    """
    n = x.shape[0]
    side = 2 * half + 1
    m = basis.shape[1]
    out = np.full((n, 13), np.nan)
    data, noise, weight = np.empty((side, side)), np.empty((side, side)), np.empty((side, side))
    model, model_x, model_y = np.empty((side, side)), np.empty((side, side)), np.empty((side, side))
    rows, rows_x, coefficients = np.empty((m, side)), np.empty((m, side)), np.empty((m, m))
    matrix, vector, middle, jacobian = np.empty((3, 3)), np.empty(3), np.empty((3, 3)), np.empty(3)
    copy, inverse = np.empty((3, 3)), np.empty((3, 3))
    for s in range(n):
        out[s, FAILED] = 1.0
        out[s, CUT] = 1.0
        out[s, NDATA] = 0.0
        out[s, COVERED] = 0.0
        out[s, X], out[s, Y] = x[s], y[s]
        if not (math.isfinite(x[s]) and math.isfinite(y[s]) and abs(x[s]) < 1e7 and abs(y[s]) < 1e7):
            continue
        left, low = math.floor(x[s] + 0.5) - half, math.floor(y[s] + 0.5) - half
        cut = load(image, variance, mask, bad, labels, label[s], left, low, data, noise, weight)
        blend(basis, terms[s], coefficients)
        px, py = x[s], y[s]
        best_x, best_y, best = px, py, np.inf
        step_x = step_y = 0.0
        damping = 1.0
        converged = iterations == 0
        for turn in range(iterations + 1):
            last = turn == iterations
            if last:
                converged = converged or (best < np.inf and math.hypot(step_x, step_y) < 1e-2)
                if not converged or math.hypot(best_x - x[s], best_y - y[s]) > reach:
                    converged = iterations == 0
                    best_x, best_y = x[s], y[s]
                px, py = best_x, best_y
            elif converged:
                continue
            place(coefficients, px, py, left, low, model, model_x, model_y, rows, rows_x)
            if last:
                continue
            pp = pd = 0.0
            for r in range(side):
                for i in range(side):
                    pp += weight[r, i] * model[r, i] ** 2
                    pd += weight[r, i] * model[r, i] * data[r, i]
            if not pp > 0.0:
                continue
            flux = pd / pp
            chi2 = -pd * flux                      # less the data's own, which is constant
            if chi2 > best + 1e-12 * abs(best):
                damping *= 0.5                     # too far: half way back
                converged = damping < 1e-3
                px, py = best_x + damping * step_x, best_y + damping * step_y
                continue
            best, best_x, best_y = chi2, px, py
            for a in range(3):
                vector[a] = 0.0
                for b in range(3):
                    matrix[a, b] = 0.0
            for r in range(side):
                for i in range(side):
                    w = weight[r, i]
                    if w > 0.0:
                        residual = data[r, i] - flux * model[r, i]
                        jacobian[0], jacobian[1], jacobian[2] = model[r, i], flux * model_x[r, i], flux * model_y[r, i]
                        for a in range(3):
                            vector[a] += w * jacobian[a] * residual
                            for b in range(a + 1):
                                matrix[a, b] += w * jacobian[a] * jacobian[b]
            step_x = step_y = 0.0
            if solve(matrix, vector, 3):
                step_x, step_y = vector[1], vector[2]
            else:
                best = np.inf
            length = math.hypot(step_x, step_y)
            converged = best < np.inf and length < 1e-4
            if length > 1.0:
                step_x, step_y = step_x / length, step_y / length
            damping = 1.0
            px, py = best_x + step_x, best_y + step_y
        pp = pd = ppv = every = seen = 0.0
        ndata = 0
        for r in range(side):
            for i in range(side):
                every += model[r, i] ** 2
                w = weight[r, i]
                if w > 0.0:
                    ndata += 1
                    seen += model[r, i] ** 2
                    pp += w * model[r, i] ** 2
                    pd += w * model[r, i] * data[r, i]
                    ppv += (w * model[r, i]) ** 2 * noise[r, i]
        out[s, NDATA] = ndata
        out[s, CUT] = 1.0 if cut else 0.0
        if not pp > 0.0:
            continue
        flux = pd / pp
        out[s, FLUX], out[s, FLUX_VARIANCE] = flux, ppv / pp**2
        out[s, X], out[s, Y] = best_x, best_y
        out[s, COVERED] = seen / every
        out[s, FAILED] = 0.0 if converged else 1.0
        chi2 = lnl = 0.0
        for a in range(3):
            for b in range(3):
                matrix[a, b] = middle[a, b] = 0.0
        for r in range(side):
            for i in range(side):
                w = weight[r, i]
                if w > 0.0:
                    v = noise[r, i]
                    square = (data[r, i] - flux * model[r, i]) ** 2 / v
                    chi2 += square
                    lnl -= 0.5 * (square + math.log(2.0 * math.pi * v))
                    jacobian[0], jacobian[1], jacobian[2] = model[r, i], flux * model_x[r, i], flux * model_y[r, i]
                    for a in range(3):
                        for b in range(3):
                            matrix[a, b] += w * jacobian[a] * jacobian[b]
                            middle[a, b] += w * w * v * jacobian[a] * jacobian[b]
        out[s, CHI2], out[s, LNL] = chi2, lnl
        if sandwich(matrix, middle, copy, inverse, vector, 3):
            out[s, XX], out[s, YY], out[s, XY] = copy[1, 1], copy[2, 2], copy[1, 2]
    return out


# Columns of what `lobes` returns; fluxes are of their own sign.
PLUS, MINUS, PLUS_X, PLUS_Y, MINUS_X, MINUS_Y, PLUS_VARIANCE, MINUS_VARIANCE, COVARIANCE, PAIR_CHI2, PAIR_NDATA, \
    PAIR_FAILED, PLUS_XX, PLUS_YY, PLUS_XY = range(15)


@numba.njit("f8[:,::1](f4[:,::1], f4[:,::1], i4[:,::1], i8, i4[:,::1], i4[::1], "
            "f8[:,:,::1], f8[:,::1], f8[:,::1], f8[:,::1], i8, i8)", cache=True, error_model="numpy")
def lobes(image, variance, mask, bad, labels, label, basis, terms, start, prior, half, iterations):  # type: ignore[no-untyped-def]
    """Two point sources of opposite sign, F+ P(x+) - F- P(x-), fitted together (Levenberg-Marquardt), to 1e-5 in chi2.

    Parameters
    ----------
    start : (n, 4)
        x+, y+, x-, y-.
    prior : (n, 4)
        F+, its error, F-, its error: Gaussian, so that close lobes do not grow without bound; also the start.

    Returns
    -------
    (n, 15) : columns as named above.
    """
    n = start.shape[0]
    side = 2 * half + 1
    m = basis.shape[1]
    out = np.full((n, 15), np.nan)
    data, noise, weight = np.empty((side, side)), np.empty((side, side)), np.empty((side, side))
    model, model_x, model_y = np.empty((2, side, side)), np.empty((2, side, side)), np.empty((2, side, side))
    rows, rows_x, coefficients = np.empty((m, side)), np.empty((m, side)), np.empty((m, m))
    matrix, damped, middle, inverse = np.empty((6, 6)), np.empty((6, 6)), np.zeros((6, 6)), np.empty((6, 6))
    vector, step, jacobian = np.empty(6), np.empty(6), np.empty(6)
    now, trial = np.empty(6), np.empty(6)
    for s in range(n):
        out[s, PAIR_FAILED] = 1.0
        left = math.floor(0.5 * (start[s, 0] + start[s, 2]) + 0.5) - half
        low = math.floor(0.5 * (start[s, 1] + start[s, 3]) + 0.5) - half
        load(image, variance, mask, bad, labels, label[s], left, low, data, noise, weight)
        blend(basis, terms[s], coefficients)
        trial[0], trial[1] = prior[s, 0], prior[s, 2]
        for a in range(4):
            trial[2 + a] = start[s, a]
        best, damping, converged, ndata, chi2 = np.inf, 1e-3, False, 0, 0.0
        for _ in range(iterations):
            for k in range(2):
                place(coefficients, trial[2 + 2 * k], trial[3 + 2 * k], left, low, model[k], model_x[k], model_y[k],
                      rows, rows_x)
            cost = ((trial[0] - prior[s, 0]) / prior[s, 1]) ** 2 + ((trial[1] - prior[s, 2]) / prior[s, 3]) ** 2
            for r in range(side):
                for i in range(side):
                    cost += weight[r, i] * (data[r, i] - trial[0] * model[0, r, i] + trial[1] * model[1, r, i]) ** 2
            if cost < best:
                converged = best - cost < 1e-5
                best = cost
                damping = max(damping * 0.2, 1e-9)
                for a in range(6):
                    now[a], vector[a] = trial[a], 0.0
                    for b in range(6):
                        matrix[a, b] = 0.0
                ndata, chi2 = 0, 0.0
                for r in range(side):
                    for i in range(side):
                        w = weight[r, i]
                        if w > 0.0:
                            residual = data[r, i] - now[0] * model[0, r, i] + now[1] * model[1, r, i]
                            ndata += 1
                            chi2 += residual**2 / noise[r, i]
                            jacobian[0], jacobian[1] = model[0, r, i], -model[1, r, i]
                            jacobian[2], jacobian[3] = now[0] * model_x[0, r, i], now[0] * model_y[0, r, i]
                            jacobian[4], jacobian[5] = -now[1] * model_x[1, r, i], -now[1] * model_y[1, r, i]
                            for a in range(6):
                                vector[a] += w * jacobian[a] * residual
                                for b in range(a + 1):
                                    matrix[a, b] += w * jacobian[a] * jacobian[b]
                for a in range(2):
                    matrix[a, a] += 1.0 / prior[s, 2 * a + 1] ** 2
                    vector[a] += (prior[s, 2 * a] - now[a]) / prior[s, 2 * a + 1] ** 2
            else:
                damping *= 5.0
                converged = best < np.inf and (damping > 1e6 or cost - best < 1e-5)
            if converged or ndata == 0:
                break
            for a in range(6):
                step[a] = vector[a]
                for b in range(6):
                    damped[a, b] = matrix[a, b]
                damped[a, a] *= 1.0 + damping
            if not solve(damped, step, 6):
                break
            length = max(max(abs(step[2]), abs(step[3])), max(abs(step[4]), abs(step[5])))
            shrink = 1.0 / length if length > 1.0 else 1.0
            for a in range(6):
                trial[a] = now[a] + shrink * step[a]
        if not best < np.inf or ndata == 0:
            continue
        for a in range(6):
            out[s, a] = now[a]
        out[s, PAIR_CHI2], out[s, PAIR_NDATA] = chi2, ndata
        out[s, PAIR_FAILED] = 0.0 if converged else 1.0
        if sandwich(matrix, middle, damped, inverse, step, 6):
            out[s, PLUS_VARIANCE], out[s, MINUS_VARIANCE] = inverse[0, 0], inverse[1, 1]
            out[s, COVARIANCE] = inverse[0, 1]
            out[s, PLUS_XX], out[s, PLUS_YY], out[s, PLUS_XY] = inverse[2, 2], inverse[3, 3], inverse[2, 3]
    return out


# Columns of what `trails` returns, after the five parameters and their 5x5 covariance in rows.
TRAIL_CHI2, POINT_CHI2, TRAIL_NDATA, TRAIL_FAILED, TRAIL_CUT = range(30, 35)


@numba.njit(cache=True, error_model="numpy")
def line(u, v, length, amplitudes, sigmas, value):  # type: ignore[no-untyped-def]  # compiled
    """Fill `value`: a mixture of round Gaussians drawn along a line, and its derivatives by u, v and length.

    u, v : place along and across, from the line's centre.
    """
    value[0] = value[1] = value[2] = value[3] = 0.0
    for k in range(sigmas.shape[0]):
        s = sigmas[k]
        if abs(v) > 4.5 * s or abs(u) - 0.5 * length > 4.5 * s:
            continue
        across = amplitudes[k] * normal(v / s)[0] / s
        if length < 0.1 * s:        # series about a point
            along = normal(u / s)[0] / s
            second = along * ((u / s) ** 2 - 1.0) / s**2
            third = along * (3.0 - (u / s) ** 2) * u / s**4
            h = along + length**2 / 24.0 * second
            slope = -along * u / s**2 + length**2 / 24.0 * third
            by_length = length / 12.0 * second
        else:
            rise, far = normal((u + 0.5 * length) / s)
            fall, near = normal((u - 0.5 * length) / s)
            h = (far - near) / length
            slope = (rise - fall) / s / length
            by_length = (0.5 * (rise + fall) / s - h) / length
        value[0] += across * h
        value[1] += across * slope
        value[2] -= across * h * v / s**2
        value[3] += across * by_length


@numba.njit(cache=True, error_model="numpy")
def squares(data, noise, weight, left, low, frame, p, amplitudes, sigmas, free, vector, matrix):  # type: ignore[no-untyped-def]
    """Weighted sum of squares about a trail of parameters `p`, chi2, and number of pixels.

    Fills `vector` and the lower half of `matrix` with the normal equations of the first `free` parameters.
    """
    value, jacobian = np.empty(4), np.empty(5)
    vector[:] = 0.0
    matrix[:] = 0.0
    cost, chi2, count = 0.0, 0.0, 0
    c, d = math.cos(p[4]), math.sin(p[4])
    for r in range(data.shape[0]):
        for i in range(data.shape[1]):
            w = weight[r, i]
            if w > 0.0:
                qx = frame[0, 0] * (left + i) + frame[0, 1] * (low + r) - p[1]
                qy = frame[1, 0] * (left + i) + frame[1, 1] * (low + r) - p[2]
                u, v = c * qx + d * qy, c * qy - d * qx
                line(u, v, p[3], amplitudes, sigmas, value)
                residual = data[r, i] - p[0] * value[0]
                cost += w * residual**2
                chi2 += residual**2 / noise[r, i]
                count += 1
                if value[0] == 0.0:
                    continue
                jacobian[0] = value[0]
                jacobian[1] = -p[0] * (c * value[1] - d * value[2])
                jacobian[2] = -p[0] * (d * value[1] + c * value[2])
                jacobian[3] = p[0] * value[3]
                jacobian[4] = p[0] * (value[1] * v - value[2] * u)
                for a in range(free):
                    part = w * jacobian[a]
                    vector[a] += part * residual
                    for b in range(a + 1):
                        matrix[a, b] += part * jacobian[b]
    return cost, chi2, count


@numba.njit("f8[:,::1](f4[:,::1], f4[:,::1], i4[:,::1], i8, i4[:,::1], i4[::1], "
            "i8[:,::1], f8[:,::1], f8[::1], f8[:,::1], f8[:,::1], f8, i8)", cache=True, error_model="numpy")
def trails(image, variance, mask, bad, labels, label, box, amplitudes, sigmas, frame, start, plain, iterations):  # type: ignore[no-untyped-def]
    """Point sources drawn along a line, and as points for comparison (Levenberg-Marquardt), to 1e-3 in chi2.

    Parameters
    ----------
    box : (n, 4)
        First column and row, number of columns and rows of each window.
    amplitudes, sigmas : (n, k), (k,)
        The PSF as a mixture of Gaussians, round in the frame.
    frame : (2, 2)
        From pixels to a frame where the PSF is round; of determinant 1.
    start : (n, 5)
        Flux, centre (x, y), length and angle [rad], the last four in the frame.
    plain : float
        A longer trail is not compared with a point, whose chi2 then is infinite.

    Returns
    -------
    (n, 35) : parameters, covariance, and the columns named above.
    """
    n = start.shape[0]
    out = np.full((n, 35), np.nan)
    matrix, middle, damped, inverse = np.empty((5, 5)), np.empty((5, 5)), np.empty((5, 5)), np.empty((5, 5))
    vector, step, now, trial = np.empty(5), np.empty(5), np.empty(5), np.empty(5)
    for s in range(n):
        left, low, nx, ny = box[s, 0], box[s, 1], box[s, 2], box[s, 3]
        data, noise, weight, squared = np.empty((ny, nx)), np.empty((ny, nx)), np.empty((ny, nx)), np.empty((ny, nx))
        cut = load(image, variance, mask, bad, labels, label[s], left, low, data, noise, weight)
        out[s, TRAIL_FAILED], out[s, TRAIL_CUT] = 1.0, 1.0 if cut else 0.0
        for kind in range(2):
            free = 5 if kind == 0 else 3
            if kind == 1 and now[3] > plain:
                out[s, POINT_CHI2] = np.inf
                break
            for a in range(5):
                trial[a] = start[s, a]
            if kind == 1:
                trial[3] = 0.0
            best, damping, converged = np.inf, 1e-3, False
            ndata, chi2 = 0, 0.0
            for _ in range(iterations):
                cost, true_cost, count = squares(data, noise, weight, left, low, frame, trial, amplitudes[s], sigmas,
                                                 free, vector, damped)
                if cost < best:
                    converged = best - cost < 1e-3
                    best, ndata, chi2 = cost, count, true_cost
                    for a in range(5):
                        now[a], step[a] = trial[a], vector[a]
                        for b in range(a + 1):
                            matrix[a, b] = matrix[b, a] = damped[a, b]
                    damping = max(damping * 0.2, 1e-9)
                else:
                    damping *= 5.0
                    converged = best < np.inf and (damping > 1e6 or cost - best < 1e-3)
                if converged or ndata == 0:
                    break
                for a in range(free):
                    vector[a] = step[a]
                    for b in range(free):
                        damped[a, b] = matrix[a, b]
                    damped[a, a] = damped[a, a] * (1.0 + damping) + 1e-12 * matrix[0, 0]
                if not solve(damped, vector, free):
                    break
                reach = max(abs(vector[1]), abs(vector[2]))
                if free == 5:
                    reach = max(reach, 0.5 * abs(vector[3]), 5.0 * abs(vector[4]))
                shrink = 3.0 / reach if reach > 3.0 else 1.0
                for a in range(5):
                    trial[a] = now[a] + (shrink * vector[a] if a < free else 0.0)
                trial[3] = abs(trial[3])
            if ndata == 0:
                break
            if kind == 1:
                out[s, POINT_CHI2] = chi2
                continue
            for a in range(5):
                out[s, a] = now[a]
            out[s, TRAIL_CHI2], out[s, TRAIL_NDATA] = chi2, ndata
            out[s, TRAIL_FAILED] = 0.0 if converged else 1.0
            for r in range(ny):
                for i in range(nx):
                    squared[r, i] = weight[r, i] ** 2 * noise[r, i]
            squares(data, noise, squared, left, low, frame, now, amplitudes[s], sigmas, 5, vector, middle)
            for a in range(5):
                for b in range(a):
                    middle[b, a] = middle[a, b]
            if sandwich(matrix, middle, damped, inverse, vector, 5):
                for a in range(5):
                    for b in range(5):
                        out[s, 5 + 5 * a + b] = damped[a, b]
    return out
