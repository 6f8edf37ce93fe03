"""The visit table of scheduler simulations (OpSim): the columns that rubin_scheduler's SchemaConverter writes.

Angles are degrees, times TAI MJD, magnitudes AB, durations seconds.
"""

from typing import Final

import numpy as np

OPSIM: Final = np.dtype([
    ("observationId", "i8"), ("night", "i8"),               # nights from the survey's first, 0
    ("observationStartMJD", "f8"), ("observationStartLST", "f8"), ("numExposures", "i8"),
    ("visitTime", "f8"), ("visitExposureTime", "f8"), ("proposalId", "i8"), ("fieldId", "i8"),
    ("fieldRA", "f8"), ("fieldDec", "f8"), ("altitude", "f8"), ("azimuth", "f8"),
    ("band", "U1"), ("filter", "U8"), ("airmass", "f8"), ("skyBrightness", "f8"),
    ("cloud", "f8"),                                        # fraction of the sky, in eighths
    ("seeingFwhm500", "f8"), ("seeingFwhmGeom", "f8"), ("seeingFwhmEff", "f8"), ("fiveSigmaDepth", "f8"),
    ("slewTime", "f8"), ("slewDistance", "f8"), ("paraAngle", "f8"), ("pseudoParaAngle", "f8"),
    ("rotTelPos", "f8"), ("rotSkyPos", "f8"), ("rotSkyPos_desired", "f8"),
    ("moonRA", "f8"), ("moonDec", "f8"), ("moonAlt", "f8"), ("moonAz", "f8"), ("moonDistance", "f8"),
    ("moonPhase", "f8"),                                    # illuminated share [percent]
    ("sunAlt", "f8"), ("sunAz", "f8"), ("solarElong", "f8"),
    ("note", "U48"), ("scheduler_note", "U48"), ("target_name", "U32"), ("science_program", "U16"),
    ("observation_reason", "U24")])
