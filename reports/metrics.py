"""The figures that two sides are compared by: all that the paper's section 6 reports, what Rubin's own metrics count,
and what a change may cost.

A margin is what may change without anybody minding, set here before any comparison; a scenario's `[judge.margins]`
sets others. Where Rubin has a metric, `rubin` is its name there and the definition is Rubin's: of the counts, the mean
over detector-visits.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, Literal

import numpy as np

from reports import evidence
from reports.contributions import estimate as evaluate
from reports.known import known_metrics
from reports.outcome import Outcome
from reports.terms import Metric, Terms

# Sections of the page, in the order of the paper's section 6.
SECTIONS: Final = ("template", "alert rate", "purity", "completeness", "latency", "noise", "photometry", "astrometry",
                   "trails and dipoles", "association", "Solar System", "forced photometry", "direct images",
                   "crowded fields", "failures", "cost")
MIN_STEP_S: Final = 0.05        # CPU time: shorter Steps are judged together, a clock's noise is most of theirs
MIN_LATENCY_S: Final = 0.05     # of the simulated clock

Better = Literal["higher", "lower", "neither"]

# Margins, each with what it is the size of.
DECIDING: Final = 0.01          # completeness at S/N 5.5-8: half of the 2 % that a change must be found by
NARROW: Final = 0.02            # completeness of few sources: no less can be told from chance in a night
FALSE: Final = 0.10             # false detections: two thirds of the 15 % that a change must be found by
FEW_FALSE: Final = 0.25         # of one cause
PLACE: Final = 0.002            # arcsec: a hundredth of a pixel, below the 0.003" that must be found
BRIGHT_MMAG: Final = 1.0        # typical error of bright fluxes: half of the 2 mmag that must be found
BIAS_MMAG: Final = 2.0          # means have the outliers' scatter too
PULL: Final = 0.05              # of a standard deviation of 1
VARIANCE: Final = 0.10          # the same of its square
CPU: Final = 0.05               # 5 % of a Step over 50 ms must be found
MEMORY: Final = 0.10            # allocators round, and the largest of a process is never the same twice
RARE: Final = 0.005             # fractions that are near 0 or 1: five in a thousand


def _metric(section: str, key: str, name: str, unit: str, better: Better, margin: float,
            terms: Callable[[Outcome], Terms], step: str, *, relative: bool = False, primary: bool = False,
            rubin: str = "") -> Metric:
    return Metric(key, name, section, unit, better, margin, relative, primary, step, terms, rubin)


# --- template, alert rate, purity ------------------------------------------------------------------------------------

def _template() -> Iterable[Metric]:
    mean = partial(partial, evidence.log_mean)
    # a template loses area in steps of whole input exposures: half a per cent is less than any
    yield _metric("template", "template_coverage", "fraction of pixels with a template", "", "higher", RARE,
                  mean(column="template_coverage"), "warp", rubin="templateCoveragePercent")
    # 0.02 mag is 2 % of a template's noise, which adds a fifth at most to a difference's
    yield _metric("template", "template_depth", "depth of the template", "mag", "higher", 0.02,
                  mean(column="template_mag_lim"), "warp", rubin="templateLimitingMagnitude")
    # the warp's own blurring is 1 %: 2 % more would be a worse kernel
    yield _metric("template", "template_psf", "FWHM of the template's PSF", "arcsec", "lower", 0.02,
                  mean(column="template_fwhm_arcsec"), "warp", relative=True, rubin="templatePsfSize")
    yield _metric("template", "template_high_variance", "fraction of template pixels of high variance", "", "lower",
                  0.002, mean(column="template_high_variance"), "warp")
    # of a dozen inputs a half is no whole exposure
    yield _metric("template", "template_inputs", "exposures behind a template pixel", "exposures", "higher", 0.5,
                  mean(column="template_n_inputs"), "warp")
    # area is completeness: a fifth of what is minded there
    yield _metric("template", "searched_area", "fraction of pixels outside all masks", "", "higher", 0.002,
                  evidence.searched, "calibrate")
    area = partial(partial, evidence.masked)
    # counted, not estimated: two pixels more around one saturated star are 40 of 10^6
    yield _metric("template", "saturated_area", "fraction of pixels masked as saturated", "", "lower", 2e-5,
                  area(step="calibrate", plane="SAT"), "calibrate")
    # a kernel wider by a pixel takes a ring of 0.4 % from a side of 1000 px
    yield _metric("template", "missing_area", "fraction of the difference without data", "", "lower", RARE,
                  area(step="subtract", plane="NO_DATA"), "subtract")
    # satellites and cosmic rays that are there have to be masked: neither is better
    yield _metric("template", "streak_area", "fraction of pixels masked as streaks", "", "neither", RARE,
                  area(step="detect", plane="STREAK"), "detect")
    yield _metric("template", "cosmic_ray_area", "fraction of pixels masked as cosmic rays", "", "neither", 0.10,
                  area(step="detect", plane="CR"), "detect", relative=True)


def _rate() -> Iterable[Metric]:
    per_visit, mean = "per detector-visit", partial(partial, evidence.log_mean)
    # 5 % of a stream is within the scatter of what the sky gives: what is right of it, purity and completeness say
    yield _metric("alert rate", "alerts", "alerts", per_visit, "neither", 0.05, evidence.alerts, "filter",
                  relative=True)
    yield _metric("alert rate", "dia_sources", "DIASources", per_visit, "neither", 0.05, mean(column="n_sources"),
                  "filter", relative=True, rubin="numDiaSourcesAll")
    yield _metric("alert rate", "detections", "detections before the filters", per_visit, "neither", 0.05,
                  mean(column="n_detected"), "detect", relative=True)
    yield _metric("alert rate", "dia_dipoles", "DIASources called dipoles", per_visit, "neither", 0.10,
                  partial(evidence.dia_sources, column="isDipole"), "measure", relative=True, rubin="numDipoles")
    yield _metric("alert rate", "new_objects", "new DIAObjects", per_visit, "neither", 0.05,
                  mean(column="n_new_objects"), "associate", relative=True, rubin="numNewDiaObjects")
    # cutouts are a fixed size: 5 % is a field more in the history
    yield _metric("alert rate", "packet_size", "size of a packet", "bytes", "lower", 0.05, evidence.packet_size,
                  "package", relative=True)


# What makes false detections, as `reports.match` names it.
CAUSES: Final = ("noise", "dipole", "static source residual", "near a true source", "fragment of a trail", "cosmic ray",
                 "satellite", "glint", "saturated", "bleed", "hot pixel", "bad pixel", "bad column",
                 "ghost", "spike", "crosstalk", "bleed residual", "aircraft", "template edge", "bad flat", "bad wcs")


def _purity() -> Iterable[Metric]:
    per_visit = "per detector-visit"
    # transPurityMin is 95 %: a fifth of what may be false
    yield _metric("purity", "purity_raw", "purity before the reliability cut, S/N ≥ 6", "", "higher", 0.01,
                  partial(evidence.purity, column="raw"), "detect")
    yield _metric("purity", "purity_alerts", "purity of alerts, S/N ≥ 6", "", "higher", 0.01,
                  partial(evidence.purity, column="alert"), "reliability")
    yield _metric("purity", "false_raw", "false detections", per_visit, "lower", FALSE,
                  partial(evidence.false, column="raw"), "detect", relative=True)
    yield _metric("purity", "false_alerts", "false alerts", per_visit, "lower", FALSE,
                  partial(evidence.false, column="alert"), "reliability", relative=True, primary=True)
    for column, what, step in (("raw", "false detections", "detect"), ("alert", "false alerts", "reliability")):
        for cause in CAUSES:
            yield _metric("purity", _of_cause(column, cause), f"{what}: {cause}", per_visit, "lower", FEW_FALSE,
                          partial(evidence.false, column=column, cause=cause.encode()), step, relative=True)


def _of_cause(column: str, cause: str) -> str:
    """Key of the metric of one cause of false detections."""
    return f"false_{'raw' if column == 'raw' else 'alerts'}_{cause.replace(' ', '_')}"


# --- completeness ----------------------------------------------------------------------------------------------------

SNR_BINS: Final = ((3.0, 5.0, NARROW), (5.0, 5.5, NARROW), (5.5, 6.5, DECIDING), (5.5, 8.0, DECIDING),
                   (8.0, 10.0, DECIDING), (10.0, 20.0, DECIDING), (20.0, np.inf, DECIDING))
CLASSES: Final = ("transient", "variable", "agn", "asteroid", "injected")
MAGNITUDES: Final = ((19.0, 21.0), (21.0, 22.0), (22.0, 23.0), (23.0, 24.0), (24.0, 25.0))
BRIGHTNESSES: Final = ((0.0, 20.0), (20.0, 22.0), (22.0, 24.0), (24.0, 30.0))      # mag/arcsec^2 under the source
DISTANCES: Final = ((0.0, 0.3), (0.3, 0.8), (0.8, 20.0))                           # arcsec
HOST_SNR: Final = (5.5, 20.0)


def _completeness() -> Iterable[Metric]:
    of = partial(partial, evidence.completeness)
    for column, suffix, what, step in (("raw", "raw", "completeness of detections", "detect"),
                                       ("alert", "alerts", "completeness of alerts", "filter")):
        for low, high, margin in SNR_BINS:
            primary = (low, high) == (5.5, 8.0)
            yield _metric("completeness", f"completeness_{suffix}_{_span(low, high)}",
                          f"{what} at S/N {_words(low, high)}", "", "higher", margin,
                          of(column=column, snr=(low, high)), step, primary=primary)
        for kind in CLASSES:
            yield _metric("completeness", f"completeness_{suffix}_{kind}", f"{what}, {kind}, S/N > 5.5", "", "higher",
                          NARROW, of(column=column, snr=(5.5, np.inf), kind=kind.encode()), step)
    for low, high in MAGNITUDES:
        yield _metric("completeness", f"completeness_raw_mag_{_span(low, high)}",
                      f"completeness of detections at magnitude {_words(low, high)}", "", "higher", NARROW,
                      of(column="raw", magnitude=(low, high)), "detect")
    host = partial(partial, evidence.hosted, snr=HOST_SNR)
    for low, high in BRIGHTNESSES:
        yield _metric("completeness", f"completeness_raw_host_{_span(low, high)}",
                      f"completeness on hosts of {_words(low, high)} mag/arcsec²", "", "higher", NARROW,
                      host(host="host_sb", within=(low, high)), "subtract")
    for low, high in DISTANCES:
        yield _metric("completeness", f"completeness_raw_distance_{_span(low, high)}",
                      f"completeness {_words(low, high)} arcsec from the host's centre", "", "higher", NARROW,
                      host(host="host_sep_arcsec", within=(low, high)), "subtract")
    yield _metric("completeness", "completeness_raw_hostless", "completeness of hostless sources", "", "higher", NARROW,
                  host(), "detect")
    yield _metric("completeness", "clean", "fraction of true sources on clean pixels", "", "higher", RARE,
                  evidence.clean, "calibrate")


def _span(low: float, high: float) -> str:
    """A range in a key: `5.5_8`, `20_up`."""
    return f"{low:g}_{high:g}" if np.isfinite(high) else f"{low:g}_up"


def _words(low: float, high: float) -> str:
    """A range in a name."""
    return f"{low:g}–{high:g}" if np.isfinite(high) else f"> {low:g}"


# --- latency, noise, photometry, astrometry --------------------------------------------------------------------------

def _latency() -> Iterable[Metric]:
    delay = partial(partial, evidence.latency)
    # the clock is simulated: it moves with the sizes of Steps, and 2 % is 1 s of what is asked
    yield _metric("latency", "latency_median", "median latency since readout (modelled)", "s", "lower", 0.02,
                  delay(since="readout_end_mjd_tai", statistic="median"), "send", relative=True)
    yield _metric("latency", "latency_98", "98th percentile of latency since readout (modelled)", "s", "lower", 0.05,
                  delay(since="readout_end_mjd_tai", statistic="percentile98"), "send", relative=True)
    yield _metric("latency", "latency_shutter", "median latency since shutter close (modelled)", "s", "lower", 0.02,
                  delay(since="shutter_close_mjd_tai", statistic="median"), "send", relative=True,
                  rubin="alert_timing_since_shutter_close")
    # OTR1 of DMS-REQ-0406 leaves 2 % to be late
    yield _metric("latency", "on_time", "alerts within 60 s of readout (modelled)", "", "higher", RARE,
                  delay(since="readout_end_mjd_tai", statistic="ratio"), "send")


def _noise() -> Iterable[Metric]:
    size = partial(partial, evidence.log_size)
    # 1 % of the S/N is 1 % of the threshold: a completeness of 0.5 % at S/N 5.5
    yield _metric("noise", "snr_rms", "rms of blank-sky S/N: |rms − 1|", "", "lower", 0.01,
                  size(column="snr_rms", ideal=1.0), "subtract")
    # four neighbours of 0.002 raise the variance under a PSF by 0.8 %
    yield _metric("noise", "noise_correlation", "noise correlation of neighbouring pixels", "", "lower", 0.002,
                  size(column="noise_correlation"), "subtract")
    # what is claimed may be claimed wrongly: neither is better
    yield _metric("noise", "difference_depth", "claimed depth of the difference", "mag", "neither", 0.02,
                  partial(evidence.log_mean, column="diffim_mag_lim"), "subtract")
    # 0.01 mag is 1 % of a flux error, as above
    yield _metric("noise", "difference_depth_error", "error of the difference's claimed depth", "mag", "lower", 0.01,
                  evidence.difference_depth, "subtract")
    yield _metric("noise", "depth_error", "error of the science image's claimed depth", "mag", "lower", 0.01,
                  evidence.depth, "calibrate")
    yield _metric("noise", "noise_over_optimum", "rms flux error over the optimum", "", "lower", 0.01,
                  evidence.efficiency, "subtract", relative=True)


BRIGHT: Final = (20.0, np.inf)


def _photometry() -> Iterable[Metric]:
    flux = partial(partial, evidence.flux_error, snr=BRIGHT)
    yield _metric("photometry", "magnitude_error", "mean size of flux errors at S/N > 20", "mmag", "lower", BRIGHT_MMAG,
                  partial(evidence.flux_size, snr=BRIGHT), "measure", primary=True)
    yield _metric("photometry", "magnitude_median", "median flux error at S/N > 20", "mmag", "lower", BRIGHT_MMAG,
                  flux(flux="psfFlux", statistic="median"), "measure")
    yield _metric("photometry", "flux_bias", "flux bias at S/N > 20", "mmag", "lower", BIAS_MMAG,
                  flux(flux="psfFlux", statistic="abs_ratio"), "measure")
    yield _metric("photometry", "flux_bias_8_20", "flux bias at S/N 8–20", "mmag", "lower", 2 * BIAS_MMAG,
                  partial(evidence.flux_error, flux="psfFlux", snr=(8.0, 20.0), statistic="abs_ratio"), "measure")
    yield _metric("photometry", "true_magnitude_median", "median flux error at true positions, S/N > 20", "mmag",
                  "lower", BRIGHT_MMAG, flux(flux="forced_flux", statistic="median"), "subtract")
    yield _metric("photometry", "true_flux_bias", "flux bias at true positions, S/N > 20", "mmag", "lower", BIAS_MMAG,
                  flux(flux="forced_flux", statistic="abs_ratio"), "subtract")
    for key, name, hosted in (("hosted", "hosted", True), ("hostless", "hostless", False)):
        yield _metric("photometry", f"pull_bias_{key}", f"bias of flux pulls at true positions, {name}", "σ", "lower",
                      PULL, partial(evidence.true_pulls, of="mean", hosted=hosted), "subtract")
    yield _metric("photometry", "pull_variance", "flux pulls at true positions: |variance − 1|", "", "lower", VARIANCE,
                  partial(evidence.true_pulls, of="variance"), "subtract")
    yield _metric("photometry", "pull_outliers", "flux pulls beyond 5", "", "lower", RARE,
                  partial(evidence.true_pulls, of="outliers"), "subtract")
    # reference catalogues agree to 2 mmag
    yield _metric("photometry", "zeropoint_bias", "bias of the zeropoint", "mmag", "lower", BIAS_MMAG,
                  partial(evidence.zeropoint, statistic="abs_ratio"), "calibrate")
    yield _metric("photometry", "zeropoint_rms", "rms error of the zeropoint", "mmag", "lower", BIAS_MMAG,
                  partial(evidence.zeropoint, statistic="rms"), "calibrate")
    # 0.5 % of the PSF's width is 2 mmag of a flux
    yield _metric("photometry", "psf_size", "error of the PSF's size", "", "lower", RARE, evidence.psf_size,
                  "calibrate")


def _astrometry() -> Iterable[Metric]:
    yield _metric("astrometry", "position_median", "median position error at S/N > 20", "arcsec", "lower", PLACE,
                  partial(evidence.positions, snr=BRIGHT), "calibrate", primary=True)
    yield _metric("astrometry", "position_median_6_20", "median position error at S/N 6–20", "arcsec", "lower",
                  2 * PLACE, partial(evidence.positions, snr=(6.0, 20.0)), "measure")
    for axis, key, name in (("dra", "ra_bias", "RA"), ("ddec", "dec_bias", "Dec")):
        yield _metric("astrometry", key, f"bias in {name} at S/N > 10", "arcsec", "lower", PLACE,
                      partial(evidence.offset, axis=axis, snr=(10.0, np.inf)), "calibrate")
    yield _metric("astrometry", "position_pull_variance", "position pulls: |variance − 1|", "", "lower", VARIANCE,
                  partial(evidence.position_pulls, of="variance"), "measure")
    yield _metric("astrometry", "position_pull_outliers", "position pulls beyond 5", "", "lower", RARE,
                  partial(evidence.position_pulls, of="outliers"), "measure")
    yield _metric("astrometry", "wcs_rms", "rms error of the WCS", "arcsec", "lower", PLACE,
                  partial(evidence.log_mean, column="wcs_rms_arcsec"), "calibrate")
    for column, rubin, name in (("astrom_offset_mean", "astromOffsetMean", "mean offset from the references"),
                                ("astrom_offset_std", "astromOffsetStd", "scatter about the references")):
        yield _metric("astrometry", column, name, "arcsec", "lower", PLACE, partial(evidence.log_mean, column=column),
                      "calibrate", rubin=rubin)


# --- trails and dipoles, association, Solar System -------------------------------------------------------------------

def _shapes() -> Iterable[Metric]:
    trail, section = partial(partial, evidence.trails), "trails and dipoles"
    # the Fisher bound of a trail of 10 PSF sigma at S/N 15 is 3 % in length, 1 deg in angle: the median's error
    yield _metric(section, "trail_length", "median error of trail lengths", "", "lower", 0.01, trail(of="length"),
                  "measure")
    yield _metric(section, "trail_angle", "median error of trail angles", "deg", "lower", 0.3, trail(of="angle"),
                  "measure")
    yield _metric(section, "trails_fitted", "fraction of trails with a fit", "", "higher", NARROW, trail(of="fitted"),
                  "measure")
    yield _metric(section, "trail_flux_ratio", "flux of trails over the true one: |ratio − 1|", "", "lower", 0.01,
                  trail(of="flux"), "measure")
    yield _metric(section, "dipoles_found", "fraction of moved stars called dipoles", "", "higher", NARROW,
                  evidence.dipoles, "measure")
    # a tenth of a pixel is the error of one lobe at S/N 20
    yield _metric(section, "dipole_length", "median error of dipole separations", "px", "lower", 0.1,
                  evidence.dipole_length, "measure")
    yield _metric(section, "point_dipoles", "fraction of points called dipoles", "", "lower", RARE,
                  evidence.point_dipoles, "measure")


def _association() -> Iterable[Metric]:
    per_visit = "per detector-visit"
    yield _metric("association", "association_accuracy", "association accuracy", "", "higher", RARE,
                  evidence.association, "associate", primary=True)
    yield _metric("association", "duplicate_objects", "duplicate DIAObjects per true source", "", "lower", RARE,
                  evidence.duplicates, "associate")
    yield _metric("association", "merged_objects", "alerts in another source's DIAObject", "", "lower", RARE,
                  evidence.merged, "associate")
    yield _metric("association", "unassociated_objects", "known DIAObjects without a new DIASource", per_visit,
                  "neither", 0.05, partial(evidence.updated_objects, of="unassociated"), "associate", relative=True,
                  rubin="numUnassociatedDiaObjects")
    yield _metric("association", "updated_objects", "known DIAObjects with a new DIASource", "", "neither", NARROW,
                  partial(evidence.updated_objects, of="updated"), "associate", rubin="fracUpdatedDiaObjects")
    yield _metric("association", "lone_objects", "DIAObjects with one DIASource", per_visit, "neither", 0.10,
                  partial(evidence.dia_sources, column="lone"), "associate", relative=True,
                  rubin="totalUnassociatedDiaObjects")


def _solar_system() -> Iterable[Metric]:
    # a night has few: one in fifty
    yield _metric("Solar System", "solar_system_associated", "known asteroids with their SSObject", "", "higher",
                  NARROW, evidence.known_asteroids, "associate", primary=True)
    yield _metric("Solar System", "solar_system_sources", "DIASources with an SSObject", "per detector-visit",
                  "neither", 0.05, evidence.associated_asteroids, "associate", relative=True,
                  rubin="numAssociatedSsObjects")
    yield _metric("Solar System", "solar_system_known", "known objects about the detector", "per detector-visit",
                  "neither", 0.05, partial(evidence.step_size, name="ephemerides"), "ephemerides", relative=True,
                  rubin="numTotalSolarSystemObjects")
    yield _metric("Solar System", "solar_system_wrong", "static sources with an SSObject", "", "lower", RARE,
                  evidence.wrong_solar_system, "associate")


# --- forced photometry, direct images, crowded fields, failures ------------------------------------------------------

def _forced() -> Iterable[Metric]:
    pull, section = partial(partial, evidence.forced_pulls), "forced photometry"
    # forced where this visit's noise put the source, a flux is too high by 1 / (S/N) of its error: 0.01 is 1 mmag at
    # S/N 10, and a tenth of that
    yield _metric(section, "forced_bias", "bias of forced fluxes", "σ", "lower", 0.01, pull(of="mean"), "forced")
    yield _metric(section, "forced_variance", "forced pulls: |variance − 1|", "", "lower", VARIANCE,
                  pull(of="variance"), "forced")
    yield _metric(section, "forced_outliers", "forced pulls beyond 5", "", "lower", RARE,
                  pull(of="outliers"), "forced")
    yield _metric(section, "forced_scatter", "scatter of forced pulls", "σ", "lower", PULL, evidence.forced_scatter,
                  "forced")
    bright = partial(partial, evidence.forced_error, snr=BRIGHT)
    yield _metric(section, "forced_offset", "median offset of forced photometry from the true place", "arcsec", "lower",
                  PLACE, evidence.forced_offset, "forced")
    yield _metric(section, "forced_flux_bias", "bias of forced fluxes at S/N > 20", "mmag", "lower", BIAS_MMAG,
                  bright(statistic="abs_ratio"), "forced")
    yield _metric(section, "light_curves", "median scatter of light curves at S/N > 20", "mmag", "lower", BRIGHT_MMAG,
                  bright(statistic="median"), "forced")


def _direct() -> Iterable[Metric]:
    star, section = partial(partial, evidence.star_error, snr=(50.0, np.inf)), "direct images"
    yield _metric(section, "direct_sources", "sources on the direct image", "per detector-visit", "neither", 0.05,
                  partial(evidence.log_mean, column="n_star"), "calibrate", relative=True, rubin="numSciSources")
    for low, high, margin in ((5.0, 10.0, NARROW), (10.0, np.inf, DECIDING)):
        yield _metric(section, f"stars_found_{_span(low, high)}", f"completeness of stars at S/N {_words(low, high)}",
                      "", "higher", margin, partial(evidence.stars, snr=(low, high)), "calibrate")
    yield _metric(section, "star_flux_bias", "flux bias of stars at S/N > 50", "mmag", "lower", BIAS_MMAG,
                  star(of="flux"), "calibrate")
    yield _metric(section, "star_scatter", "median flux error of stars at S/N > 50", "mmag", "lower", BRIGHT_MMAG,
                  star(of="scatter"), "calibrate")
    yield _metric(section, "star_position", "median position error of stars at S/N > 50", "arcsec", "lower", PLACE,
                  star(of="position"), "calibrate")
    yield _metric(section, "star_pull_variance", "flux pulls of stars at S/N 10–50: |variance − 1|", "", "lower",
                  VARIANCE, partial(evidence.star_error, snr=(10.0, 50.0), of="pulls"), "calibrate")


def _crowded() -> Iterable[Metric]:
    yield _metric("crowded fields", "crowded_completeness",
                  "completeness of detections at S/N 5.5–20, densest less sparsest third of the fields", "", "higher",
                  2 * NARROW, partial(evidence.crowded, column="raw", snr=(5.5, 20.0)), "subtract")


def _failures() -> Iterable[Metric]:
    yield _metric("failures", "failed_visits", "detector-visits that failed", "", "lower", RARE,
                  partial(evidence.with_status, statuses=(b"failed", b"timeout")), "")
    yield _metric("failures", "no_work", "detector-visits without work", "", "lower", RARE,
                  partial(evidence.with_status, statuses=(b"no_work",)), "")


# --- cost ------------------------------------------------------------------------------------------------------------

def _cost() -> Iterable[Metric]:
    yield _metric("cost", "cpu.total", "CPU time of all Steps", "s", "lower", CPU,
                  partial(evidence.step_cost, column="cpu_s"), "", relative=True, primary=True)
    yield _metric("cost", "memory.peak", "peak memory", "MB", "lower", MEMORY, evidence.step_memory, "", relative=True)


METRICS: Final[tuple[Metric, ...]] = (
    *_completeness(), *_purity(), *_photometry(), *_astrometry(), *_noise(), *_association(), *_solar_system(),
    *_shapes(), *_forced(), *_direct(), *_template(), *_rate(), *_latency(), *_crowded(), *_failures(), *_cost())


def metrics_of(*sides: Outcome) -> tuple[Metric, ...]:
    """METRICS, and the cost and latency of each Step that the sides measured.

    Causes of false detections that no side has are left out, and what the catalogue of another program does not say:
    each metric makes the correction for their number harder. Purity is left out where all that is known of the sky is
    what was injected: what else is detected there may be real.
    """
    seen = {cause.decode() for side in sides for cause in np.unique(side.false["cause"])}
    absent = {_of_cause(column, cause) for column in ("raw", "alert") for cause in CAUSES if cause not in seen}
    found = (*(metric for metric in METRICS if metric.key not in absent), *step_metrics(sides))
    if any(map(is_injected, sides)):
        found = tuple(metric for metric in found if metric.section != "purity")
    return known_metrics(found, *(side.facts for side in sides))


def is_injected(side: Outcome) -> bool:
    """Whether injections into real images are all that is known of a side's sky."""
    return bool(len(side.sources)) and bool(np.all(side.sources["kind"] == b"injected"))


def step_metrics(sides: Sequence[Outcome]) -> tuple[Metric, ...]:
    """CPU time and memory of Steps; CPU of those that take over 50 ms on any side, of the others together.

    Durations are of the simulated clock, for Steps of over 50 ms there.
    """
    out: list[Metric] = []
    long = _names(sides, "cpu_s", MIN_STEP_S)
    short = tuple(name for name in _names(sides, "cpu_s", -1.0) if name not in long)
    for name in long:
        out.append(_metric("cost", f"cpu.{name}", f"CPU time of {name}", "s", "lower", CPU,
                           partial(evidence.step_cost, column="cpu_s", names=(name,)), name, relative=True))
    if short:
        out.append(_metric("cost", "cpu.rest", "CPU time of all other Steps", "s", "lower", 2 * CPU,
                           partial(evidence.step_cost, column="cpu_s", names=short), "", relative=True))
    for name in _names(sides, "peak_mb", 0.0):
        out.append(_metric("cost", f"memory.{name}", f"peak memory of {name}", "MB", "lower", MEMORY,
                           partial(evidence.step_memory, name=name), name, relative=True))
    for name in _names(sides, "duration_s", MIN_LATENCY_S):
        out.append(_metric("latency", f"latency.{name}", f"duration of {name} (modelled)", "s", "lower", CPU,
                           partial(evidence.step_cost, column="duration_s", names=(name,)), name, relative=True))
    return tuple(out)


def _names(sides: Sequence[Outcome], column: str, least: float) -> tuple[str, ...]:
    """Steps whose median over the rows of any side is above `least`, by name."""
    found = set()
    for side in sides:
        rows = side.steps[evidence.common(side, "steps") & np.isfinite(side.steps[column])]
        for name in np.unique(rows["name"]):
            if float(np.median(rows[column][rows["name"] == name])) > least:
                found.add(name.decode())
    return tuple(sorted(found))


__all__ = ["CAUSES", "METRICS", "SECTIONS", "evaluate", "is_injected", "metrics_of", "step_metrics"]
