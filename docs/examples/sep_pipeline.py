"""A small difference-imaging pipeline on the files of `alert-twin export`: numpy, sep and astropy, nothing else.

    python sep_pipeline.py EXPORT answers.csv

The sharper image of each pair is convolved to the PSF of the other, by the ratio of their Fourier transforms; their
difference goes through a matched filter; sep finds the peaks of its significance, positive and negative.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import sep
from astropy.io import fits

THRESHOLD = 5.0   # sigma
BAD, SATURATED = 1 | 16 | 256, 2 | 128   # mask bits BAD, EDGE, NO_DATA; SAT, SUSPECT: README.md of the export
RESIDUAL = 0.05   # of a star's light is not trusted to subtract


def convolve(image, kernel):
    """An image convolved with a small kernel, by Fourier transforms; zeros beyond its border."""
    shape = np.add(image.shape, kernel.shape) - 1
    out = np.fft.irfft2(np.fft.rfft2(image, shape) * np.fft.rfft2(kernel, shape), shape)
    return out[kernel.shape[0] // 2:, kernel.shape[1] // 2:][:image.shape[0], :image.shape[1]]


def matching(sharp, wide):
    """The kernel that makes a PSF as wide as another one."""
    side = max(len(sharp), len(wide))
    a, b = (np.fft.fft2(np.fft.ifftshift(np.pad(psf, (side - len(psf)) // 2))) for psf in (sharp, wide))
    kernel = np.fft.fftshift(np.fft.ifft2(b * a.conj() / (np.abs(a)**2 + 1e-4)).real)
    return kernel / kernel.sum()


def subtract(planes):
    """The difference, its variance and PSF, and which pixels are usable."""
    mask = planes["SCIENCE_MASK"] | planes["TEMPLATE_MASK"]
    good = ((mask & BAD) == 0) & (convolve((mask & SATURATED) > 0, np.ones((15, 15))) < 0.5)    # and the star's wings
    images, variances, psfs = ([planes["SCIENCE" + of], planes["TEMPLATE" + of]] for of in ("", "_VARIANCE", "_PSF"))
    sharp = int((psfs[1]**2).sum() > (psfs[0]**2).sum())
    kernel = matching(psfs[sharp], psfs[1 - sharp])
    images[sharp], variances[sharp] = convolve(images[sharp], kernel), convolve(variances[sharp], kernel**2)
    science, template = images
    bright = good & (template > 20 * np.sqrt(sum(variances)))
    scale = np.median(science[bright] / template[bright]) if bright.sum() > 100 else 1.0
    return science - scale * template, sum(variances) + (RESIDUAL * template)**2, psfs[1 - sharp], good


def detect(planes):
    """x, y, flux, error, S/N of what differs, and whether it is no sharper than a star."""
    difference, variance, psf, good = subtract(planes)
    weight, mirrored = good / np.maximum(variance, variance[good].min()), psf[::-1, ::-1]
    power = np.maximum(convolve(weight, mirrored**2), 1e-3 * np.median(weight) * (psf**2).sum())
    flux, snr = convolve(difference * weight, mirrored) / power, convolve(difference * weight, mirrored) / power**0.5
    noise = 1.4826 * np.median(np.abs(snr[good]))       # neighbouring pixels are correlated: measured, not computed
    for sign in (1, -1):
        for one in sep.extract(sign * snr / noise, THRESHOLD, mask=~good, filter_kernel=None, minarea=3):
            x, y = int(one["xpeak"]), int(one["ypeak"])
            peak = (sign * difference)[max(y - 2, 0):y + 3, max(x - 2, 0):x + 3].max()
            like_a_star = peak < 2 * abs(flux[y, x]) * psf.max() + 3 * variance[y, x]**0.5
            yield one["x"], one["y"], flux[y, x], noise / power[y, x]**0.5, abs(snr[y, x]) / noise, like_a_star


def main(export, answers):
    """Every pair of images of an export to one answer sheet."""
    with open(answers, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["visit", "detector", "x", "y", "psfFlux", "psfFluxErr", "snr", "alert"])
        for path in sorted(Path(export, "pairs").glob("*.fits")):
            with fits.open(path) as hdus:
                planes = {h.name: h.data.astype(h.data.dtype.newbyteorder("=")) for h in hdus[1:]}
                visit, detector = hdus["SCIENCE"].header["VISIT"], hdus["SCIENCE"].header["DETECTOR"]
            for *measured, like_a_star in detect(planes):
                rows.writerow([visit, detector, *(f"{value:.4f}" for value in measured), like_a_star])


if __name__ == "__main__":
    main(*sys.argv[1:])
