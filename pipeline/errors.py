"""What can go wrong, by what the driver may do about it."""


class PipelineError(Exception):
    """Something failed in a way the pipeline names."""


class RetriableError(PipelineError):
    """Nothing outside has changed: trying again is safe."""


class NonRetriableError(PipelineError):
    """Something outside may already have changed: this image cannot be tried again."""


class NoWorkFound(PipelineError):
    """There is nothing to do here (no template overlaps, all pixels masked): a skipped visit, not a failure."""


class AlgorithmError(PipelineError):
    """The data defeat a stage (no PSF stars, a bad subtraction, too many new objects): this visit has no alerts."""


class TooManyDiaObjects(AlgorithmError):
    """More new objects than a detector can have: the subtraction is bad, and nothing is written."""


class VisitTimeout(Exception):
    """Thrown into the pipeline by its driver when the visit's time is over."""


class InputError(ValueError):
    """Input from a user that cannot be used: the message names the file, key or HDU, and what was expected."""


class PacketError(PipelineError):
    """An alert packet that cannot be read, with the place where reading stopped."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"packet unreadable at byte {offset}: {reason}")
        self.offset, self.reason = offset, reason
