"""Tables of the twin itself: what crosses between stages, and what the measurement store holds.

Columns that mean what a prompt table means carry its name (`psfFlux`, `midpointMjdTai`). Nulls: NaN for floats, 0 for
diaObjectId and ssObjectId, -1 for other integers that may be missing, b"" for text.

MEASUREMENT is what the pixel half yields: positions, lengths and angles in pixels (angles in degrees from +x towards
+y), fluxes in nJy (images are calibrated to nJy before differencing, as the LSST Science Pipelines do). DIA_SOURCE
exists only after `pipeline.transform`.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

# Reference catalogue: what calibration compares with. Fluxes in nJy, NaN where the band is missing.
REFERENCE: Final = np.dtype(
    [("refId", "i8"), ("ra", "f8"), ("dec", "f8"), ("raErr", "f4"), ("decErr", "f4")]   # [deg], errors [arcsec]
    + [(f"{band}_flux", "f4") for band in "ugrizy"] + [(f"{band}_fluxErr", "f4") for band in "ugrizy"])

# Stars found on one exposure by `calibrate`.
STAR: Final = np.dtype([
    ("x", "f8"), ("y", "f8"), ("xErr", "f4"), ("yErr", "f4"), ("flux", "f4"), ("fluxErr", "f4"),   # nJy
    ("snr", "f4"), ("extended", "?"), ("psf_used", "?"), ("flags", "i4"), ("refId", "i8")])        # -1: no reference

PIXEL_FLAGS: Final = (
    "pixelFlags", "pixelFlags_bad", "pixelFlags_cr", "pixelFlags_crCenter", "pixelFlags_edge", "pixelFlags_nodata",
    "pixelFlags_nodataCenter", "pixelFlags_interpolated", "pixelFlags_interpolatedCenter", "pixelFlags_offimage",
    "pixelFlags_saturated", "pixelFlags_saturatedCenter", "pixelFlags_suspect", "pixelFlags_suspectCenter",
    "pixelFlags_streak", "pixelFlags_streakCenter", "pixelFlags_injected", "pixelFlags_injectedCenter",
    "pixelFlags_injected_template", "pixelFlags_injected_templateCenter")

# Flags that the filters read and the prompt table has no column for.
EXTRA_FLAGS: Final = (
    "interpolatedCenterAll", "badCenter", "edgeCenter", "sat_templateCenter", "spikeCenter", "high_varianceCenterAll",
    "trail_off_image", "trail_suspect_long", "sky_source")

MEASUREMENT: Final = np.dtype(
    [("id", "i4"),                                                         # counter in the detector-visit, from 0
     ("x", "f8"), ("y", "f8"), ("xErr", "f4"), ("yErr", "f4"), ("x_y_Cov", "f4"), ("centroid_flag", "?"),
     ("peak_x", "i4"), ("peak_y", "i4"), ("snr", "f4"), ("isNegative", "?"),
     ("bbox_x0", "i4"), ("bbox_y0", "i4"), ("bbox_x1", "i4"), ("bbox_y1", "i4"),   # footprint, last pixel included
     ("footprint_area", "i4"), ("bboxSize", "i4"),
     ("psfFlux", "f4"), ("psfFluxErr", "f4"), ("psfLnL", "f4"), ("psfChi2", "f4"), ("psfNdata", "i4"),
     ("psfFlux_flag", "?"), ("psfFlux_flag_edge", "?"), ("psfFlux_flag_noGoodPixels", "?"),
     ("apFlux", "f4"), ("apFluxErr", "f4"), ("apFlux_flag", "?"), ("apFlux_flag_apertureTruncated", "?"),
     ("trailFlux", "f4"), ("trailFluxErr", "f4"), ("trailX", "f8"), ("trailXErr", "f4"), ("trailY", "f8"),
     ("trailYErr", "f4"), ("trailLength", "f4"), ("trailLengthErr", "f4"), ("trailAngle", "f4"),
     ("trailAngleErr", "f4"), ("trailChi2", "f4"), ("trailNdata", "i4"), ("trail_flag", "?"), ("trail_flag_edge", "?"),
     ("dipoleMeanFlux", "f4"), ("dipoleMeanFluxErr", "f4"), ("dipoleFluxDiff", "f4"), ("dipoleFluxDiffErr", "f4"),
     ("dipoleLength", "f4"), ("dipoleAngle", "f4"), ("dipoleChi2", "f4"), ("dipoleNdata", "i4"),
     ("isDipole", "?"), ("dipoleFitAttempted", "?"),
     ("scienceFlux", "f4"), ("scienceFluxErr", "f4"), ("forced_PsfFlux_flag", "?"), ("forced_PsfFlux_flag_edge", "?"),
     ("forced_PsfFlux_flag_noGoodPixels", "?"), ("templateFlux", "f4"), ("templateFluxErr", "f4"),
     ("ixx", "f4"), ("iyy", "f4"), ("ixy", "f4"), ("ixxPSF", "f4"), ("iyyPSF", "f4"), ("ixyPSF", "f4"),   # [pixel^2]
     ("shape_flag", "?"), ("shape_flag_no_pixels", "?"), ("shape_flag_not_contained", "?"),
     ("shape_flag_parent_source", "?"), ("extendedness", "f4"), ("reliability", "f4"), ("glint_trail", "?")]
    + [(name, "?") for name in PIXEL_FLAGS + EXTRA_FLAGS])

# Forced photometry at given positions: what `Pixels.force` returns.
FORCED: Final = np.dtype([
    ("psfFlux", "f4"), ("psfFluxErr", "f4"), ("scienceFlux", "f4"), ("scienceFluxErr", "f4"),   # nJy, NaN off the image
    ("x", "f8"), ("y", "f8"), ("inside", "?"), ("flag_edge", "?"), ("flag_noGoodPixels", "?")])

# Predicted positions of known Solar System objects as polynomials of time (degree 3 about epoch), and their orbits.
EPHEMERIS_ORDER: Final = 3
EPHEMERIS: Final = np.dtype([
    ("ssObjectId", "i8"), ("designation", "S16"), ("epoch_mjd_tai", "f8"), ("half_span_d", "f8"),
    ("object_xyz", "f8", (3, EPHEMERIS_ORDER + 1)),     # topocentric, ICRF [au]: coefficients of
                                                        # ((t - epoch) / half_span)^k
    ("observer_xyz", "f8", (3, EPHEMERIS_ORDER + 1)),   # heliocentric position of the observer [au]
    ("vmag", "f4"), ("error_arcsec", "f4"),
    ("a", "f8"), ("e", "f8"), ("inc", "f8"), ("node", "f8"), ("argperi", "f8"), ("mean_anomaly", "f8"),   # [au], [deg]
    ("epoch_orbit_mjd_tai", "f8"), ("h", "f8"), ("g", "f8"),
    ("element_errors", "f8", (6,)),                     # one sigma of a ... mean_anomaly [au, deg]
    ("arc_d", "f8"), ("n_oppositions", "i4"), ("n_observations", "i4")])   # what the orbit was fitted to

# Tracks of catalogued satellites: what the allow-list service knows of an exposure. Great-circle segments [deg].
TRACK: Final = np.dtype([("visit", "i8"), ("ra0", "f8"), ("dec0", "f8"), ("ra1", "f8"), ("dec1", "f8")])

# --- the measurement store -------------------------------------------------------------------------------------------

STEP: Final = np.dtype([
    ("visit", "i8"), ("detector", "i2"), ("name", "S24"), ("size", "i8"),
    ("start_mjd_tai", "f8"), ("duration_s", "f8"),       # on the driver's clock (simulated, or the wall's)
    ("cpu_s", "f8"), ("peak_mb", "f4"), ("measured", "?")])

PUBLICATION: Final = np.dtype([
    ("diaSourceId", "i8"), ("visit", "i8"), ("detector", "i2"), ("bytes", "i4"),
    ("shutter_close_mjd_tai", "f8"), ("readout_end_mjd_tai", "f8"), ("sent_mjd_tai", "f8")])

# One row per message of a stream on the wall clock (`alert-twin stream`), as its broker acknowledged it. TAI is of the
# simulated night, unix of the wall.
SENDING: Final = np.dtype([
    ("diaSourceId", "i8"), ("visit", "i8"), ("detector", "i2"),
    ("copy", "i2"), ("copies", "i2"),                    # which of how many messages of this alert: 0 of 1
    ("promised_mjd_tai", "f8"), ("due_mjd_tai", "f8"),   # when the night sends it; with the delay that is on purpose
    ("due_unix_s", "f8"), ("sent_unix_s", "f8"),         # what is between them is lag
    ("reordered", "?"), ("late", "?")])                  # held back on purpose

REJECTION: Final = np.dtype([
    ("visit", "i8"), ("detector", "i2"), ("id", "i4"), ("x", "f8"), ("y", "f8"), ("ra", "f8"), ("dec", "f8"),
    ("snr", "f4"), ("psfFlux", "f4"), ("reliability", "f4"), ("isNegative", "?"),
    ("bbox_x0", "i4"), ("bbox_y0", "i4"), ("bbox_x1", "i4"), ("bbox_y1", "i4"),
    ("stage", "S24"), ("reason", "S40")])

# The fate of one detector-visit.
EXPOSURE_LOG: Final = np.dtype([
    ("visit", "i8"), ("detector", "i2"), ("band", "S1"), ("midpointMjdTai", "f8"), ("exposure_s", "f4"),
    ("nx", "i4"), ("ny", "i4"), ("ra", "f8"), ("dec", "f8"), ("airmass", "f4"), ("fidelity", "S10"),
    ("status", "S16"),                                   # done | no_work | failed | timeout
    ("reason", "S64"),
    ("n_detected", "i4"), ("n_sources", "i4"), ("n_new_objects", "i4"), ("n_alerts", "i4"),
    ("usable_px", "i8"),                                 # pixels outside the input's and our own masks
    ("shutter_close_mjd_tai", "f8"), ("readout_end_mjd_tai", "f8"), ("done_mjd_tai", "f8"),
    # measured by the pipeline
    ("fwhm_arcsec", "f4"), ("psf_sigma_px", "f4"), ("zeropoint", "f4"), ("sky_adu", "f4"), ("sky_noise_adu", "f4"),
    ("mag_lim", "f4"), ("astrom_offset_mean", "f4"), ("astrom_offset_std", "f4"), ("n_psf_star", "i4"),
    ("n_kernel_star", "i4"), ("noise_correlation", "f4"),   # lag 1 of the decorrelated difference
    ("snr_rms", "f4"),                                   # rms of the matched-filter S/N on blank sky
    ("template_fwhm_arcsec", "f4"), ("template_coverage", "f4"), ("diffim_mag_lim", "f4"),
    ("template_mag_lim", "f4"),                          # of a point source of S/N 5 on the warped template
    ("template_high_variance", "f4"),                    # fraction of the covered pixels in HIGH_VARIANCE
    ("template_n_inputs", "f4"),                         # median number of visits over the covered pixels
    ("n_star", "i4"),                                    # sources that calibration measured
    # true values (NaN in production)
    ("true_fwhm_arcsec", "f4"), ("true_psf_sigma_px", "f4"), ("true_zeropoint", "f4"), ("true_sky_adu", "f4"),
    ("true_m5", "f4"), ("wcs_rms_arcsec", "f4"), ("wcs_max_arcsec", "f4")])

CLASSES: Final = ("transient", "variable", "agn", "asteroid", "moved_star", "injected")

# Every true source that differs from its template, per detector-visit.
TRUTH: Final = np.dtype([
    ("visit", "i8"), ("detector", "i2"), ("truthId", "i8"), ("kind", "S12"),      # one of CLASSES
    ("ra", "f8"), ("dec", "f8"), ("x", "f8"), ("y", "f8"),
    ("flux", "f8"), ("science_flux", "f8"), ("template_flux", "f8"),              # [nJy]; flux = science - template
    ("snr", "f4"), ("flux_err_optimum", "f4"),           # optimum (ZOGY) error with the noise of both images
    ("host_sep_arcsec", "f4"), ("host_mag", "f4"), ("host_sb", "f4"),             # NaN when hostless; [mag/arcsec^2]
    ("trail_length", "f4"), ("trail_angle", "f4"),       # [pixel], [deg from +x to +y]; 0 for points
    ("separation_px", "f4"),                             # moved_star: distance between its lobes
    ("ssObjectId", "i8"), ("eph_err_arcsec", "f4"),      # known asteroids; 0 and NaN otherwise
    ("input_mask", "i4"),                                # planes of science and template input under the source
    ("isolated", "?"),                                   # no other true source within 4 FWHM
    ("forced_flux", "f4"), ("forced_flux_err", "f4"),    # the pipeline's pixels at the true position, afterwards
    ("mask_at", "i4"), ("significance_at", "f4"),        # difference mask and S/N at the true position
    ("reason", "S40"),                                   # why there is no alert; b"" when there is one
    ("class", "S12"),                                    # of a declared population: sn_ia, eclipsing; b"" otherwise
    ("weight", "f4")])                                   # its density on the sky over that in the field; NaN: unknown

# Every true static star of science S/N >= 5 on a detector, against the stars that calibration found there.
STAR_TRUTH: Final = np.dtype([
    ("visit", "i8"), ("detector", "i2"), ("band", "S1"), ("starId", "i8"), ("flux", "f8"),   # [nJy]
    ("snr", "f4"),                                       # over the smallest error that its and the sky's noise allow
    ("found", "?"), ("psfFlux", "f4"), ("psfFluxErr", "f4"),   # [nJy], of the science image; NaN where not found
    ("dx_arcsec", "f4"), ("dy_arcsec", "f4"),            # found less true, to the East and the North
    ("position_err_arcsec", "f4"),                       # claimed, per axis
    ("judged", "?"),                                     # no mask plane of the input under it
    ("isolated", "?")])                                  # others' light under its PSF is less than half its error

# Pixels that a cause touched: artifacts, with the line or box they cover.
TRUTH_PIXELS: Final = np.dtype([
    ("visit", "i8"), ("detector", "i2"), ("truthId", "i8"), ("kind", "S16"),
    ("x0", "f4"), ("y0", "f4"), ("x1", "f4"), ("y1", "f4"), ("width", "f4"), ("peak_adu", "f4")])

INJECTION: Final = np.dtype([
    ("injectionId", "i8"), ("visit", "i8"), ("detector", "i2"), ("ra", "f8"), ("dec", "f8"), ("x", "f8"), ("y", "f8"),
    ("flux", "f8"), ("kind", "S12"), ("trail_length", "f4"), ("trail_angle", "f4"), ("template", "?")])

# Stamps kept for the report's gallery: row `index` of stamps/VISIT_DETECTOR.npy is (3, 51, 51) float32 [nJy], science,
# matched template, difference, centred on the nearest pixel; NaN off the image.
STAMP_SIDE: Final = 51
STAMP: Final = np.dtype([
    ("visit", "i8"), ("detector", "i2"), ("index", "i4"), ("kind", "S8"),        # truth | source
    ("truthId", "i8"), ("id", "i4"),                     # of TRUTH (kind truth), of MEASUREMENT (kind source); else -1
    ("x", "f8"), ("y", "f8")])

# What each Step left behind in numbers, so that two runs can be laid side by side: the first Step that differs made the
# difference. One row per detector-visit, Step and quantity.
TRACE: Final = np.dtype([("visit", "i8"), ("detector", "i2"), ("step", "S24"), ("quantity", "S32"), ("value", "f8")])

# --- outcomes: a run laid against its truth, what two runs are compared by -------------------------------------------

# One row per true source and detector-visit; `seed` says which night of a test.
OUTCOME: Final = np.dtype([
    ("seed", "i8"), ("visit", "i8"), ("detector", "i2"), ("band", "S1"), ("truthId", "i8"), ("kind", "S12"),
    ("ra", "f8"), ("dec", "f8"), ("x", "f4"), ("y", "f4"), ("flux", "f8"), ("science_flux", "f8"),   # [nJy]
    ("snr", "f4"), ("magnitude", "f4"), ("host_sep_arcsec", "f4"), ("host_sb", "f4"),
    ("trail_length", "f4"), ("trail_angle", "f4"), ("separation_px", "f4"),
    ("ssObjectId", "i8"), ("eph_err_arcsec", "f4"),
    ("judged", "?"), ("isolated", "?"), ("clean", "?"),   # in denominators; alone; on no mask plane that spoils a flux
    ("raw", "?"), ("alert", "?"), ("reason", "S64"),      # detected; published; why not (closed list)
    ("measured_id", "i4"), ("diaSourceId", "i8"), ("diaObjectId", "i8"), ("found_ssObjectId", "i8"),  # detection
    ("found_snr", "f4"), ("psfFlux", "f4"), ("psfFluxErr", "f4"), ("scienceFlux", "f4"), ("scienceFluxErr", "f4"),
    ("dra", "f4"), ("ddec", "f4"), ("raErr", "f4"), ("decErr", "f4"),   # found less true, and claimed error [arcsec]
    ("reliability", "f4"), ("isDipole", "?"), ("found_trail_length", "f4"), ("found_trail_angle", "f4"),
    ("trailFlux", "f4"), ("found_dipole_length", "f4"),
    ("forced_flux", "f4"), ("forced_flux_err", "f4"), ("mask_at", "i4"), ("significance_at", "f4"),
    ("associated", "?"),                                  # an alert in the DIAObject (SSObject) of its source
    ("duplicate", "?"),                                   # the alert that opened a further DIAObject of its source
    ("merged", "?"),                                      # an alert in a DIAObject that is mainly another source's
    ("lone", "?"),                                        # the only DIASource of its DIAObject
    ("input_mask", "i4")])                                # as in TRUTH

# Every detection that no true source explains.
OUTCOME_FALSE: Final = np.dtype([
    ("seed", "i8"), ("visit", "i8"), ("detector", "i2"), ("x", "f4"), ("y", "f4"), ("ra", "f8"), ("dec", "f8"),
    ("snr", "f4"), ("cause", "S24"), ("raw", "?"), ("alert", "?"), ("stage", "S24"), ("reason", "S40"),
    ("reliability", "f4"), ("isNegative", "?"), ("isDipole", "?"), ("measured_id", "i4"), ("diaSourceId", "i8"),
    ("diaObjectId", "i8"), ("lone", "?")])

# Forced photometry of DIAObjects of true static sources, against the true flux at that time.
OUTCOME_FORCED: Final = np.dtype([
    ("seed", "i8"), ("visit", "i8"), ("detector", "i2"), ("band", "S1"), ("truthId", "i8"), ("diaObjectId", "i8"),
    ("flux", "f8"), ("psfFlux", "f4"), ("psfFluxErr", "f4"), ("snr", "f4"), ("clean", "?"),
    ("offset_arcsec", "f4")])   # of the place that was forced from the true one

# Direct-image sources: STAR_TRUTH of all nights of a test.
OUTCOME_STAR: Final = np.dtype([("seed", "i8"), *((name, STAR_TRUTH[name]) for name in STAR_TRUTH.names or ())])

# DIASources withdrawn from the prompt tables, and why.
RETRACTION: Final = np.dtype([
    ("diaSourceId", "i8"), ("diaObjectId", "i8"), ("visit", "i8"), ("detector", "i2"), ("timeWithdrawnMjdTai", "f8"),
    ("reason", "S128")])

# A visit as the morning leaves it, over its detectors.
VISIT_SUMMARY: Final = np.dtype([
    ("visit", "i8"), ("band", "S1"), ("midpointMjdTai", "f8"),
    ("n_done", "i4"), ("n_caught_up", "i4"), ("n_no_work", "i4"), ("n_failed", "i4"),      # detectors
    ("n_sources", "i4"), ("n_withdrawn", "i4"), ("n_ss", "i4"), ("n_founding", "i4"),      # DIASources
    ("n_lost_founding", "i4"),                  # that founded a DIAObject which is now another's
    ("n_forced", "i4"), ("n_precovered", "i4"), ("n_alerts", "i4"),
    ("reliability", "f4"), ("snr", "f4"),       # medians over DIASources
    ("psf_sigma_px", "f4"), ("zeropoint", "f4")])

# --- a night at counts fidelity: what the platform did, in seconds of the simulated clock (fact `origin_mjd_tai`) -----

# One row per detector-visit; NaN for what never happened. Of several attempts the one that saved, or the last.
PASSAGE: Final = np.dtype([
    ("visit", "i8"), ("detector", "i2"), ("field", "i8"),
    ("shutter_close_s", "f8"), ("readout_end_s", "f8"),
    ("published_s", "f8"),                               # the message is in the stream
    ("taken_s", "f8"), ("preloaded_s", "f8"),            # by a worker, which then has what is known of the field
    ("arrived_s", "f8"), ("seen_s", "f8"),               # the image is in the bucket; the worker has it
    ("measured_s", "f8"), ("standardized_s", "f8"),      # the pixel half's end; timeProcessedMjdTai of its sources
    ("reloaded_s", "f8"), ("saved_s", "f8"),
    ("sent_s", "f8"), ("delivered_s", "f8"),             # acknowledged by Kafka; with the last of the brokers
    ("freed_s", "f8"),                                   # the worker is free again
    ("message", "i4"), ("pod", "i4"),                    # of that attempt; -1: none
    ("attempts", "i2"),                                  # messages that were taken
    ("capped", "?"),                                     # all pods that may be were there when its message came
    ("warm", "?"),                                       # the worker had the detector's calibrations
    ("n_detected", "i4"), ("n_satellites", "i4"), ("n_quality", "i4"), ("n_reliability", "i4"),
    ("n_new_objects", "i4"),                             # detections, and those that each filter rejects
    ("n_alerts", "i4"), ("n_fresh", "i4"),               # the rest; of them, in new DIAObjects
    ("n_sent", "i4"), ("n_sent_twice", "i4"), ("bytes", "i8"),
    ("reason", "S24"),                                   # why its alerts were never sent; b"" where they were
    ("reference_s", "f8"),                               # sent, with no fault and unlimited workers; NaN: not even then
    ("cause", "S24"), ("excess_s", "f8")])               # why it is late or lost, and by how much more than then

# The summit's announcement of a visit, as the ScriptQueue's nextVisit event has it (fan-out adds the detector).
NEXT_VISIT: Final = np.dtype([
    ("visit", "i8"), ("salIndex", "i4"), ("scriptSalIndex", "i4"), ("groupId", "S32"), ("coordinateSystem", "S8"),
    ("ra", "f8"), ("dec", "f8"), ("startTime_s", "f8"),  # of the first exposure, on the simulated clock
    ("rotationSystem", "S8"), ("cameraAngle", "f8"), ("filters", "S8"), ("dome", "S8"),
    ("duration", "f8"),                                  # of the script [s], not of the exposure
    ("nimages", "i4"),                                   # 0: not known
    ("instrument", "S16"), ("survey", "S16"), ("totalCheckpoints", "i4"),
    ("private_sndStamp_s", "f8"),                        # sent; messages older than their expiry are discarded
    ("published_s", "f8")])                              # in the stream; a visit announced twice has two rows

# One row per call of a shared service: in its queue from asked to start, served to end.
CALL: Final = np.dtype([
    ("row", "i4"), ("message", "i4"), ("step", "i2"),    # of `passage`; of CALL_STEPS
    ("asked_s", "f8"), ("start_s", "f8"), ("end_s", "f8")])
CALL_STEPS: Final = ("registry", "templates", "calibs", "objects", "history", "ephemerides", "satellites", "reload",
                     "save", "export", "egress")
CALL_SERVICES: Final = ("registry", "storage", "storage", "apdb", "apdb", "ephemeris", "satellites", "apdb", "apdb",
                        "export", "egress")              # whose they are

# What each Step of a detector-visit takes or would take [s], before any wait.
WORK_STEPS: Final = (
    "registry", "templates", "calibs", "objects", "history", "ephemerides",
    "isr", "calibrate", "warp", "subtract", "detect", "measure", "cutouts", "reliability",
    "satellites", "filter", "transform", "reload", "associate", "statistics", "forced", "package", "save", "send",
    "export")
WORK: Final = np.dtype([("visit", "i8"), ("detector", "i2"), *((name, "f4") for name in WORK_STEPS)])

POD: Final = np.dtype([("pod", "i4"), ("created_s", "f8"), ("ready_s", "f8"), ("ended_s", "f8"), ("visits", "i4")])

# How a night stood, every so often while it ran, in seconds of the simulated clock; not part of its result.
PULSE: Final = np.dtype([
    ("wall_s", "f8"), ("at_s", "f8"),                    # since 1970; on the simulated clock
    ("opened", "i4"), ("done", "i4"),                    # visits whose shutter opened; that are over, all detectors
    ("waiting", "i4"), ("busy", "i4"), ("idle", "i4"), ("starting", "i4"),   # messages; workers
    ("produced", "i8"), ("sent", "i8"), ("late", "i8"), ("lost", "i8")])     # alerts so far, as `reports.state.Tally`

# The run as a whole: keys and values of its circumstances.
FACT: Final = np.dtype([("key", "S64"), ("value", "S512")])


def fact_rows(values: Mapping[str, object]) -> np.ndarray:
    """FACT rows; a value is cut at 512 bytes."""
    rows = np.zeros(len(values), FACT)
    for row, (key, value) in zip(rows, values.items(), strict=True):
        row["key"], row["value"] = key.encode(), str(value).encode()[:512]
    return rows


def empty(dtype: np.dtype, n: int = 0) -> np.ndarray:
    """`n` rows of nulls: NaN, -1 (0 for diaObjectId and ssObjectId), False, empty text."""
    blank = _BLANKS.get(id(dtype))
    if blank is None or blank.dtype is not dtype:
        _BLANKS[id(dtype)] = blank = _blank(dtype)
    void = np.dtype((np.void, dtype.itemsize))
    rows = blank.view(void).repeat(n)
    return np.ndarray(rows.shape, dtype, rows)      # a view would look at every field again


_BLANKS: Final[dict[int, np.ndarray]] = {}     # by dtype: one is hashed only slowly


def _blank(dtype: np.dtype) -> np.ndarray:
    rows = np.zeros(1, dtype)
    for name in dtype.names or ():
        kind = dtype[name].base.kind
        if kind == "f":
            rows[name] = np.nan
        elif kind == "i" and name not in ("diaObjectId", "ssObjectId", "parentDiaSourceId", "input_mask", "mask_at"):
            rows[name] = -1
    return rows
