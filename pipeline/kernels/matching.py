"""What the fit of a matching kernel asks of its stars: each star's pixels are read while they are in a cache.

Stars are done from `start` to `stop`, so that threads can share them; what is said of one depends on no other.
"""

import numba
import numpy as np


@numba.njit("void(f4[:,:,::1], f4[:,::1], i8[:,::1], f4[::1], i8, i8, f4[:,:,::1])", cache=True, nogil=True,
            fastmath=True)
def respond(stamps, filters, pairs, less, start, stop, out):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Stamps convolved with separable functions, the part without a border.

    stamps : (s, M, M)
    filters : (f, 2 half + 1)
    pairs : (n, 2)
        Which filters a function has along x and along y.
    less : (n,)
        How much of the first function is taken off each.
    out : (s, n, (M - 2 half)^2)
    """
    side, taps = stamps.shape[1], filters.shape[1]
    inner = side - taps + 1
    long = side * side - taps + 1
    rows = np.empty(side * side, np.float32)
    wide = np.empty((len(filters), side * inner), np.float32)
    for s in range(start, stop):
        flat = stamps[s].reshape(side * side)
        for f in range(len(filters)):
            for i in range(long):       # rows are done as one line: what runs over their ends is left out below
                rows[i] = np.float32(0.0)
            k = 0
            while k + 4 <= taps:
                a, b = filters[f, taps - 1 - k], filters[f, taps - 2 - k]
                c, d = filters[f, taps - 3 - k], filters[f, taps - 4 - k]
                one, two, three, four = flat[k:], flat[k + 1:], flat[k + 2:], flat[k + 3:]
                for i in range(long):
                    rows[i] += a * one[i] + b * two[i] + c * three[i] + d * four[i]
                k += 4
            while k < taps:
                a, one = filters[f, taps - 1 - k], flat[k:]
                for i in range(long):
                    rows[i] += a * one[i]
                k += 1
            for j in range(side):
                for i in range(inner):
                    wide[f, j * inner + i] = rows[j * side + i]
        first = out[s, 0]
        for n in range(len(pairs)):
            band, down, here = wide[pairs[n, 0]], pairs[n, 1], out[s, n]
            scale = -less[n]
            for i in range(inner * inner):
                here[i] = np.float32(0.0) if n == 0 else scale * first[i]
            k = 0
            while k + 4 <= taps:
                a, b = filters[down, taps - 1 - k], filters[down, taps - 2 - k]
                c, d = filters[down, taps - 3 - k], filters[down, taps - 4 - k]
                one, two = band[k * inner:], band[(k + 1) * inner:]
                three, four = band[(k + 2) * inner:], band[(k + 3) * inner:]
                for i in range(inner * inner):
                    here[i] += a * one[i] + b * two[i] + c * three[i] + d * four[i]
                k += 4
            while k < taps:
                a, one = filters[down, taps - 1 - k], band[k * inner:]
                for i in range(inner * inner):
                    here[i] += a * one[i]
                k += 1


@numba.njit("void(f4[:,::1], f4[:,::1], f4[:,::1], b1[:,::1], f8[::1], f8[::1], f8, f8, f8, f8, i8, i8, i8, f4[:,::1], "
            "f8[::1])", cache=True, nogil=True, fastmath=True)
def weigh(light, ours, theirs, good, sky_ours, sky_theirs, smoothing, relative, shift_x, shift_y, side, start, stop,  # type: ignore[no-untyped-def]  # compiled for the one signature above
          weight, least):
    """Inverse variances of stars' pixels, and the least noise of a pixel of each star.

    Noise is sky and a multiple of the light, so that weights do not know the pixels' own noise: planes made from the
    data are low where the data are. Beside it stand a relative error of the model, and errors of its place.

    light, ours, theirs : (s, side^2)
        The stars without noise, as far as they are known, and both variances.
    sky_ours, sky_theirs : (s,)
    smoothing : float
        How much of `theirs` is left by the convolution.
    """
    for s in range(start, stop):
        square, slope_ours, slope_theirs = 0.0, 0.0, 0.0
        for i in range(side * side):
            value = np.float64(light[s, i])
            square += value * value
            slope_ours += (ours[s, i] - sky_ours[s]) * value
            slope_theirs += (theirs[s, i] - sky_theirs[s]) * value
        sky = np.float32(sky_ours[s] + smoothing * sky_theirs[s])
        slope = np.float32((max(slope_ours, 0.0) + smoothing * max(slope_theirs, 0.0)) / max(square, 1e-30))
        smallest = np.float32(1e30)
        for j in range(side):
            up, down = max(j - 1, 0), min(j + 1, side - 1)
            along_y = np.float32(shift_y / max(down - up, 1))
            for i in range(side):
                left, right = max(i - 1, 0), min(i + 1, side - 1)
                at = j * side + i
                dy = along_y * (light[s, down * side + i] - light[s, up * side + i])
                along_x = np.float32(shift_x / max(right - left, 1))
                dx = along_x * (light[s, j * side + right] - light[s, j * side + left])
                own = np.float32(relative) * light[s, at]
                base = sky + slope * max(light[s, at], np.float32(0.0))
                smallest = min(smallest, base)
                noise = base + own * own + dx * dx + dy * dy
                weight[s, at] = np.float32(1.0) / noise if good[s, at] else np.float32(0.0)
        least[s] = smallest


@numba.njit("void(f4[:,:,::1], f4[:,::1], f4[:,::1], f4[:,::1], f8[::1], f8, i8, i8, f8[:,:,::1], f8[:,::1], "
            "f8[:,::1])", cache=True, nogil=True, fastmath=True)
def normals(functions, target, model, weight, prior, factor, start, stop, normal, vector, mean):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Normal equations of each star, a constant and a factor near 1 of its own integrated out.

    functions : (s, n, p)
    target, model, weight : (s, p)
    prior : (s,)
        Inverse variances of the constants, which lie about 0.
    factor : float
        Inverse variance of the factors; 0 leaves them out.
    normal, vector : (s, n, n), (s, n)
    mean : (s, n + 1)
        Of each function and of the target: what the constant takes off per unit of it.
    """
    n, p = functions.shape[1], functions.shape[2]
    heavy = np.empty(p, np.float32)
    cross = np.empty(n)
    for s in range(start, stop):
        total, aims, models, aimed, modelled = prior[s], 0.0, 0.0, 0.0, 0.0
        for i in range(p):
            w = np.float64(weight[s, i])
            total += w
            aims += w * target[s, i]
            models += w * model[s, i]
            aimed += w * target[s, i] * model[s, i]
            modelled += w * model[s, i] * model[s, i]
        mean[s, n] = aims / total
        for a in range(n):
            one, two, three = np.float32(0.0), np.float32(0.0), np.float32(0.0)
            for i in range(p):
                value = functions[s, a, i] * weight[s, i]
                heavy[i] = value
                one += value
                two += value * target[s, i]
                three += value * model[s, i]
            mean[s, a] = one / total
            vector[s, a] = two - one * aims / total
            cross[a] = three - one * models / total
            b = 0
            while b + 4 <= a + 1:
                q, r, t, u = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
                for i in range(p):
                    q += heavy[i] * functions[s, b, i]
                    r += heavy[i] * functions[s, b + 1, i]
                    t += heavy[i] * functions[s, b + 2, i]
                    u += heavy[i] * functions[s, b + 3, i]
                normal[s, a, b], normal[s, a, b + 1], normal[s, a, b + 2], normal[s, a, b + 3] = q, r, t, u
                b += 4
            while b <= a:
                q = np.float32(0.0)
                for i in range(p):
                    q += heavy[i] * functions[s, b, i]
                normal[s, a, b] = q
                b += 1
        modelled -= models * models / total
        aimed -= aims * models / total
        share = 1.0 / (modelled + factor) if factor > 0.0 else 0.0
        for a in range(n):
            vector[s, a] -= cross[a] * share * aimed
            for b in range(a + 1):
                value = normal[s, a, b] - total * mean[s, a] * mean[s, b] - share * cross[a] * cross[b]
                normal[s, a, b] = value
                normal[s, b, a] = value


@numba.njit("void(f4[:,:,::1], f4[:,::1], i8, i8, f4[:,::1])", cache=True, nogil=True, fastmath=True)
def sums(functions, coefficients, start, stop, out):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """Each star's functions, (s, n, p), times its coefficients (s, n)."""
    n, p = functions.shape[1], functions.shape[2]
    for s in range(start, stop):
        for i in range(p):
            out[s, i] = np.float32(0.0)
        for a in range(n):
            c = coefficients[s, a]
            for i in range(p):
                out[s, i] += c * functions[s, a, i]


@numba.njit("void(f4[:,::1], f4[:,::1], f8[::1], f8[::1], f4[:,::1], f8, i8, i8, i8, f8[:,:,::1], f8[:,::1], f8[::1])",
            cache=True, nogil=True, fastmath=True)
def misfit(target, model, level, constant, weight, scale, side, start, stop, normal, vector, chi2):  # type: ignore[no-untyped-def]  # compiled for the one signature above
    """What is left of stars, and which change of flux and place it asks for.

    The residual is (target - level) - scale (model - constant).

    target, model, weight : (s, side^2)
    level, constant : (s,)
    normal, vector : (s, 3, 3), (s, 3)
        Of a relative flux and shifts in x and y of scale * model, slopes by central differences, at the borders
        by one-sided ones.
    chi2 : (s,)
    """
    for s in range(start, stop):
        mm, mx, my, xx, xy, yy, mr, xr, yr, rr = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for j in range(side):
            up, down = max(j - 1, 0), min(j + 1, side - 1)
            along_y = 1.0 / max(down - up, 1)
            for i in range(side):
                left, right = max(i - 1, 0), min(i + 1, side - 1)
                at = j * side + i
                w = np.float64(weight[s, at])
                light = scale * np.float64(model[s, at])
                gy = -scale * along_y * np.float64(model[s, down * side + i] - model[s, up * side + i])
                gx = -scale / max(right - left, 1) * np.float64(model[s, j * side + right] - model[s, j * side + left])
                r = target[s, at] - level[s] - light + scale * constant[s]
                mm += w * light * light
                mx += w * light * gx
                my += w * light * gy
                xx += w * gx * gx
                xy += w * gx * gy
                yy += w * gy * gy
                mr += w * light * r
                xr += w * gx * r
                yr += w * gy * r
                rr += w * r * r
        normal[s, 0, 0], normal[s, 0, 1], normal[s, 0, 2] = mm, mx, my
        normal[s, 1, 0], normal[s, 1, 1], normal[s, 1, 2] = mx, xx, xy
        normal[s, 2, 0], normal[s, 2, 1], normal[s, 2, 2] = my, xy, yy
        vector[s, 0], vector[s, 1], vector[s, 2] = mr, xr, yr
        chi2[s] = rr


__all__ = ["misfit", "normals", "respond", "sums", "weigh"]
