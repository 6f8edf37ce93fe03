"""Point sources: a PSF given by quintic spline coefficients, put anywhere and fitted by least squares.

A window of pixels around each source is copied once; its weights are inverse variances smoothed over 5x5 pixels, so
that a variance plane that follows the noise of its own pixels does not pull the flux; errors come from the variance
as it is (the sandwich A^-1 B A^-1). Every kernel returns one row of numbers per source.
"""

import math

import numba
import numpy as np

SMOOTH = 2        # half side of the box over which variances are smoothed into weights [pixel]


@numba.njit(cache=True)
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


@numba.njit(cache=True)
def place(coefficients, x, y, left, low, model, model_x, model_y, rows, rows_x):  # type: ignore[no-untyped-def]
    """Fill `model` with the PSF centred on (x, y), and its derivatives by x and y; pixel [0, 0] is (left, low).

    coefficients : (m, m) of the centred stamp, with a border of zeros of at least 3; rows, rows_x : (m, nx) scratch.
    """
    m = coefficients.shape[0]
    ny, nx = model.shape
    weights, slopes = np.empty(6), np.empty(6)
    whole = math.floor(x)
    spline(1.0 - (x - whole), weights, slopes)
    for i in range(nx):
        base = left + i - whole + m // 2 - 1 - 2
        for r in range(m):
            value = slope = 0.0
            for k in range(6):
                j = base + k
                if 0 <= j < m:
                    value += weights[k] * coefficients[r, j]
                    slope -= slopes[k] * coefficients[r, j]
            rows[r, i], rows_x[r, i] = value, slope
    whole = math.floor(y)
    spline(1.0 - (y - whole), weights, slopes)
    for r in range(ny):
        base = low + r - whole + m // 2 - 1 - 2
        for i in range(nx):
            value = across = down = 0.0
            for k in range(6):
                j = base + k
                if 0 <= j < m:
                    value += weights[k] * rows[j, i]
                    across += weights[k] * rows_x[j, i]
                    down -= slopes[k] * rows[j, i]
            model[r, i], model_x[r, i], model_y[r, i] = value, across, down


@numba.njit(cache=True)
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
    for r in range(data.shape[0]):
        for i in range(data.shape[1]):
            if noise[r, i] > 0.0:
                total, n = 0.0, 0
                for q in range(max(r - SMOOTH, 0), min(r + SMOOTH + 1, data.shape[0])):
                    for p in range(max(i - SMOOTH, 0), min(i + SMOOTH + 1, data.shape[1])):
                        if noise[q, p] > 0.0:
                            total += noise[q, p]
                            n += 1
                weight[r, i] = n / total
    return cut


@numba.njit(cache=True)
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


# Columns of what `fit` returns.
FLUX, FLUX_VARIANCE, X, Y, XX, YY, XY, CHI2, NDATA, LNL, FAILED, CUT, COVERED = range(13)


@numba.njit("f8[:,:](f4[:,:], f4[:,:], i4[:,:], i8, i4[:,:], i4[:], f8[:,:,:], f8[:,:], f8[:], f8[:], i8, i8, f8)",
            cache=True)
def fit(image, variance, mask, bad, labels, label, basis, terms, x, y, half, iterations, reach):  # type: ignore[no-untyped-def]
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
    rows, rows_x = np.empty((m, side)), np.empty((m, side))
    matrix, vector, middle = np.empty((3, 3)), np.empty(3), np.empty((3, 3))
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
        coefficients = np.zeros((m, m))
        for k in range(basis.shape[0]):
            coefficients += terms[s, k] * basis[k]
        px, py = x[s], y[s]
        best_x, best_y, best = px, py, np.inf
        step_x = step_y = 0.0
        damping = 1.0
        converged = iterations == 0
        for _ in range(iterations):
            place(coefficients, px, py, left, low, model, model_x, model_y, rows, rows_x)
            pp = pd = 0.0
            for r in range(side):
                for i in range(side):
                    pp += weight[r, i] * model[r, i] ** 2
                    pd += weight[r, i] * model[r, i] * data[r, i]
            if not pp > 0.0:
                break
            flux = pd / pp
            chi2 = -pd * flux                      # less the data's own, which is constant
            if chi2 > best + 1e-12 * abs(best):
                damping *= 0.5                     # too far: half way back
                if damping < 1e-3:
                    converged = True
                    break
                px, py = best_x + damping * step_x, best_y + damping * step_y
                continue
            best, best_x, best_y = chi2, px, py
            matrix[:] = 0.0
            vector[:] = 0.0
            for r in range(side):
                for i in range(side):
                    w = weight[r, i]
                    if w > 0.0:
                        residual = data[r, i] - flux * model[r, i]
                        a, b, c = model[r, i], flux * model_x[r, i], flux * model_y[r, i]
                        matrix[0, 0] += w * a * a
                        matrix[1, 0] += w * a * b
                        matrix[2, 0] += w * a * c
                        matrix[1, 1] += w * b * b
                        matrix[2, 1] += w * b * c
                        matrix[2, 2] += w * c * c
                        vector[0] += w * a * residual
                        vector[1] += w * b * residual
                        vector[2] += w * c * residual
            if not solve(matrix, vector, 3):
                break
            step_x, step_y = vector[1], vector[2]
            length = math.hypot(step_x, step_y)
            if length > 1.0:
                step_x, step_y = step_x / length, step_y / length
            if length < 1e-4:
                converged = True
                break
            damping = 1.0
            px, py = best_x + step_x, best_y + step_y
        if iterations > 0:
            converged = converged or (best < np.inf and math.hypot(step_x, step_y) < 1e-2)
            if math.hypot(best_x - x[s], best_y - y[s]) > reach:
                converged = False
            if not converged:
                best_x, best_y = x[s], y[s]
        place(coefficients, best_x, best_y, left, low, model, model_x, model_y, rows, rows_x)
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
        matrix[:] = 0.0
        middle[:] = 0.0
        for r in range(side):
            for i in range(side):
                w = weight[r, i]
                if w > 0.0:
                    v = noise[r, i]
                    square = (data[r, i] - flux * model[r, i]) ** 2 / v
                    chi2 += square
                    lnl -= 0.5 * (square + math.log(2.0 * math.pi * v))
                    a, b, c = model[r, i], flux * model_x[r, i], flux * model_y[r, i]
                    matrix[0, 0] += w * a * a
                    matrix[0, 1] += w * a * b
                    matrix[0, 2] += w * a * c
                    matrix[1, 1] += w * b * b
                    matrix[1, 2] += w * b * c
                    matrix[2, 2] += w * c * c
                    u = w * w * v
                    middle[0, 0] += u * a * a
                    middle[0, 1] += u * a * b
                    middle[0, 2] += u * a * c
                    middle[1, 1] += u * b * b
                    middle[1, 2] += u * b * c
                    middle[2, 2] += u * c * c
        out[s, CHI2], out[s, LNL] = chi2, lnl
        for i in range(3):
            for j in range(i):
                matrix[i, j], middle[i, j] = matrix[j, i], middle[j, i]
        inverse = np.zeros((3, 3))
        good = True
        for j in range(3):
            copy = matrix.copy()
            vector[:] = 0.0
            vector[j] = 1.0
            good = good and solve(copy, vector, 3)
            for i in range(3):
                inverse[i, j] = vector[i]
        if good:
            xx = yy = xy = 0.0
            for i in range(3):
                for j in range(3):
                    xx += inverse[1, i] * middle[i, j] * inverse[j, 1]
                    yy += inverse[2, i] * middle[i, j] * inverse[j, 2]
                    xy += inverse[1, i] * middle[i, j] * inverse[j, 2]
            out[s, XX], out[s, YY], out[s, XY] = xx, yy, xy
    return out
