"""Prompt Processing in simulated time: from nextVisit to the brokers, at counts fidelity.

    nextVisit -> fan-out -> stream of messages -> pod | preload ... image ... pixel half, catalogue half | -> outbox
                               ^ KEDA polls, starts pods       registry, storage, APDB, ephemerides,        -> Kafka
                                                               satellites, export: one queue each           -> brokers

A pod takes one message at a time and is held until its detector-visit is over, its export included. What a Step takes
was drawn before (`twin.counts`); waits come about here. Names and order are those of prompt_processing.
"""

from array import array
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import simpy

from schemas.measures import CALL, CALL_SERVICES, CALL_STEPS, NEXT_VISIT, PASSAGE, POD, WORK_STEPS
from simulators.streams import stream
from twin.counts import Numbers
from twin.plan import Plan
from twin.platform_config import PlatformConfig, ServiceConfig
from twin.scaling import to_start
from twin.services import Service
from twin.troubles import Trouble

NAN: Final = float("nan")
TIMES: Final = tuple(name for name in PASSAGE.names or () if name.endswith("_s") and name not in (
    "shutter_close_s", "readout_end_s", "reference_s", "excess_s"))
PUBLISHED, TAKEN, PRELOADED, ARRIVED, SEEN, MEASURED, STANDARDIZED, RELOADED, SAVED = range(9)    # of TIMES
STEP: Final = {name: k for k, name in enumerate(CALL_STEPS)}
COLUMN: Final = {name: k for k, name in enumerate(WORK_STEPS)}
PIXEL_STEPS: Final = ("isr", "calibrate", "warp", "subtract", "detect", "measure", "cutouts", "reliability")
SINGLE_FRAME_STEPS: Final = ("isr", "calibrate")     # of the fallback without a template or preload
ISR_STEPS: Final = ("isr",)                          # and of the one without references
BEFORE_RELOAD: Final = ("filter", "transform")
BEFORE_SAVE: Final = ("associate", "statistics", "forced")     # and the packets, but where they come after it
# A failure that changed nothing outside, and that another try may mend.
RETRIABLE: Final = frozenset({"registry", "no preload", "satellites", "apdb", "timeout", "killed", "out of memory"})
DIES: Final = frozenset({"killed", "out of memory"})     # the pod with its message

Events = Generator[simpy.Event, Any, None]


class Ended(Exception):
    """A detector-visit is over before its alerts were saved."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Message:
    """nextVisit for one detector, as it lies in the stream; `row` is -1 for a visit that is never taken."""

    __slots__ = ("attempt", "capped", "detector", "limit", "limit_reason", "number", "pod", "queued", "row", "stamp",
                 "times", "troubled", "visit", "warm")

    def __init__(self, number: int, visit: int, detector: int, row: int, stamp: float, published: float,
                 attempt: int = 0) -> None:
        self.number, self.visit, self.detector, self.row, self.stamp = number, visit, detector, row, stamp
        self.attempt, self.pod, self.capped, self.warm, self.troubled = attempt, -1, False, False, False
        self.limit, self.limit_reason, self.queued = np.inf, "timeout", published
        self.times = [published, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN]


@dataclass(frozen=True, slots=True)
class Ran:
    """What a night left behind."""

    passages: np.ndarray       # PASSAGE without a reference
    calls: np.ndarray          # CALL
    pods: np.ndarray           # POD
    next_visits: np.ndarray    # NEXT_VISIT in the order they came
    counters: dict[str, int]   # those of ExpectConfig, and not_exported
    queue_area: float          # messages in the stream x seconds, summed as their number changed
    queue_waits: float         # seconds that messages lay there, summed message by message
    busy_area: float           # pods at work x seconds, summed as their number changed
    busy_spans: float          # seconds that pods were at work, summed message by message
    end_s: float


class PromptProcessing:
    """The machines of one night.

    Parameters
    ----------
    unlimited : bool
        A warm pod at once for every message: the platform that nobody waits for.
    """

    def __init__(self, config: PlatformConfig, plan: Plan, numbers: Numbers, troubles: Sequence[Trouble] = (), *,
                 seed: int = 1, max_new_objects: int = 1000, unlimited: bool = False) -> None:
        self.config, self.plan, self.numbers, self.unlimited = config, plan, numbers, unlimited
        self.troubles, self.max_new_objects = troubles, max_new_objects
        self.pulse: Callable[[PromptProcessing], None] = lambda platform: None     # at every poll; it only looks
        self.env = simpy.Environment()
        self.n_detectors = len(numbers.counts) // max(len(plan), 1)
        self._by_kind: dict[str, list[Trouble]] = {}
        for trouble in troubles:
            self._by_kind.setdefault(trouble.config.kind, []).append(trouble)
        self._troubled = np.logical_or.reduce([t.touched for t in troubles]) if troubles else np.zeros(len(plan), bool)
        self.services = {name: Service(getattr(config.services, name).servers)
                         for name in config.services.__struct_fields__}
        self._desks: list[tuple[Service, ServiceConfig, str]] = [
            (self.services[name], getattr(config.services, name), name) for name in CALL_SERVICES if name != "egress"]
        self._egress = Service(1)
        self._seconds_per_byte = 8e-9 * config.publication.streams / config.publication.egress_gbps
        self._startup = stream(seed, "pods")
        self._no_template = numbers.no_template.copy()
        for trouble in self._by_kind.get("template_missing", ()):
            self._no_template |= trouble.touched
        self._prepare_rows()
        self._prepare_night()

    def run(self, drive: Callable[[simpy.Environment], None] = simpy.Environment.run) -> Ran:
        """The whole night, until the last worker is free and the outbox empty; `drive` takes every event in turn."""
        self.env.process(self._front())
        if not self.unlimited:
            self.env.process(self._scaler())
        drive(self.env)
        return self._ran()

    # --- what is known beforehand -----------------------------------------------------------------------------------

    def _prepare_rows(self) -> None:
        n = len(self.numbers.counts)
        self.times = {name: array("d", [NAN]) * n for name in TIMES}
        self.reason: list[str] = ["no nextVisit"] * n
        self.pod, self.attempts = array("i", [-1]) * n, array("i", [0]) * n
        self.message, self._n_messages = array("i", [-1]) * n, 0
        self.capped, self.warm = bytearray(n), bytearray(n)
        self.n_sent, self.n_sent_twice = array("i", [0]) * n, array("i", [0]) * n
        self._saved = bytearray(n)
        self._calls = array("d")
        self._pods: list[list[float]] = []
        self.counters = {"in_vain": 0, "redelivered": 0, "out_of_order": 0, "unanswered": 0, "without_ephemerides": 0,
                         "single_frames": 0, "isr_only": 0, "surplus": 0, "not_exported": 0}
        self._waiting: deque[Message] = deque()
        self._idle: deque[tuple[simpy.Event, float]] = deque()
        self._alive = self._pending = self._starting = self._busy = self._open = 0
        self._queue_area = self._queue_waits = self._busy_area = self._busy_spans = self._accounted = 0.0

    def _prepare_night(self) -> None:
        """Costs of local work in sums, images' arrivals, and when each visit's message comes."""
        work, c = self.numbers.work, self.numbers.counts
        self._pixel, self._single = self._total(PIXEL_STEPS), self._total(SINGLE_FRAME_STEPS)
        self._isr = self._total(ISR_STEPS)
        through_outbox = self.config.publication.order == "outbox"
        self._first = self._total(BEFORE_RELOAD)
        self._second = self._total((*BEFORE_SAVE, "package") if through_outbox else BEFORE_SAVE)
        self._cost = {name: work[:, COLUMN[name]].astype(float).tolist() for name in
                      ("registry", "templates", "calibs", "objects", "history", "ephemerides", "satellites", "reload",
                       "package", "save", "send", "export")}
        self._alerts, self._bytes = c["n_alerts"].tolist(), c["bytes"].tolist()
        self._fresh, self._detected = c["n_fresh"].tolist(), c["n_detected"].tolist()
        self._first_image, self._arrivals = self._arrive()
        self._messages = self._announce()
        angle = self.plan.pointing["rotation"].astype(float)
        for trouble in self._by_kind.get("mismatch", ()):
            angle = angle + np.where(trouble.touched, trouble.config.factor, 0.0)
        self._turned = np.abs((angle - self.plan.pointing["rotation"] + 180.0) % 360.0 - 180.0)

    def _total(self, names: Sequence[str]) -> list[float]:
        """Seconds of some Steps together, of every detector-visit."""
        columns = [COLUMN[name] for name in names]
        seconds: list[float] = self.numbers.work[:, columns].sum(axis=1, dtype=float).tolist()
        return seconds

    def _arrive(self) -> tuple[list[float], list[float]]:
        """When a detector-visit's first image is in the bucket, and the last one it waits for; inf: never."""
        nimages = self.config.front.nimages
        images = self._images(max(nimages, 1))
        for trouble in self._by_kind.get("image_late", ()):
            images[self._rows(trouble)] += trouble.config.delay_s
        for kind, last in (("image_missing", slice(None)), ("snap_missing", slice(-1, None))):
            for trouble in self._by_kind.get(kind, ()):
                images[self._rows(trouble), last] = np.inf
        if nimages:
            self.counters["surplus"] = sum(int(self._rows(t).sum()) for t in self._by_kind.get("image_extra", ()))
        wanted = images[:, -1] if nimages else np.full(len(images), np.inf)
        return images.min(axis=1).tolist(), wanted.tolist()

    def _images(self, n_images: int) -> np.ndarray:
        """(rows, n_images) arrivals without trouble of single images; they share one link to the data facility."""
        front, n, readout = self.config.front, self.n_detectors, self.config.readout_s
        each, free = 8e-3 * front.image_mb / front.link_gbps, 0.0
        snap = (self.plan.closes_s - self.plan.opens_s + readout) / n_images     # from one shutter's close to the next
        leaves = self.plan.closes_s[:, None] + readout - snap[:, None] * np.arange(n_images)[::-1]
        for trouble in self._by_kind.get("network_cut", ()):
            leaves = np.where(trouble.touched[:, None], np.maximum(leaves, trouble.end_s), leaves)
        out = np.zeros((len(leaves) * n, n_images))
        for k in np.argsort(leaves, axis=None, kind="stable").tolist():
            i, image = divmod(k, n_images)
            begin = max(free, float(leaves[i, image]))
            out[i * n:(i + 1) * n, image] = begin + each * np.arange(1, n + 1)
            free = begin + each * n
        return np.asarray(out + self.numbers.transfer_s[:, None])

    def _rows(self, trouble: Trouble) -> np.ndarray:
        """(rows,) bool: whose detector-visits a trouble touches."""
        detectors = np.arange(self.n_detectors) < (trouble.config.detectors or self.n_detectors)
        return (trouble.touched[:, None] & detectors).ravel()

    def _announce(self) -> list[tuple[float, int, float, bool]]:
        """(time of the messages, visit, stamp, of a visit that is taken) in the order of time."""
        front, out = self.config.front, []
        for i, opens in enumerate(self.plan.opens_s.tolist()):
            sent = opens - self.config.lead_s
            at, stamp, copies = sent, sent, 1
            for kind, troubles in self._by_kind.items():
                for trouble in troubles:
                    if not trouble.touched[i]:
                        continue
                    if kind == "next_visit_lost":
                        copies = 0
                    elif kind in ("next_visit_late", "next_visit_out_of_order"):
                        at += trouble.config.delay_s
                    elif kind == "next_visit_duplicated":
                        copies += 1
                    elif kind == "network_cut":
                        at = max(at, trouble.end_s)
                    elif kind == "clock_skew":
                        stamp -= trouble.config.delay_s
                    elif kind == "next_visit_extra":
                        out.append((at + front.fan_out_s, i, stamp, False))
            out += [(at + front.fan_out_s, i, stamp, True)] * copies
        return sorted(out, key=lambda message: (message[0], message[1]))

    def _next_visits(self) -> np.ndarray:
        """NEXT_VISIT rows of all announcements, lost ones left out."""
        rows = np.zeros(len(self._messages), NEXT_VISIT)
        order = np.array([visit for _, visit, _, _ in self._messages], int)
        rows["published_s"] = [at for at, _, _, _ in self._messages]
        rows["private_sndStamp_s"] = [stamp for _, _, stamp, _ in self._messages]
        rows["visit"], rows["startTime_s"] = self.plan.visit[order], self.plan.opens_s[order]
        rows["groupId"] = [f"group {visit}".encode() for visit in self.plan.visit[order].tolist()]
        where = self.plan.pointing[order]
        rows["ra"], rows["dec"], rows["cameraAngle"] = where["ra"], where["dec"], where["rotation"]
        rows["filters"], rows["duration"] = where["band"], self.config.front.duration_s
        rows["nimages"] = self.config.front.nimages
        rows["salIndex"], rows["scriptSalIndex"], rows["totalCheckpoints"] = 1, 100_000 + order, 1
        for name, value in (("coordinateSystem", b"ICRS"), ("rotationSystem", b"SKY"), ("dome", b"OPEN"),
                            ("instrument", b"LSSTCam"), ("survey", b"BLOCK-407")):     # [PROD] of accepted surveys
            rows[name] = value
        return rows

    # --- front end and stream ---------------------------------------------------------------------------------------

    def _front(self) -> Events:
        """Fan-out: a message per detector."""
        env, n, newest = self.env, self.n_detectors, -1
        self._open += 1
        for at, visit, stamp, real in self._messages:
            if at > env.now:
                yield env.timeout(at - env.now)
            if visit < newest:
                self.counters["out_of_order"] += n
            newest = max(newest, visit)
            for detector in range(n):
                self._publish(visit, detector, visit * n + detector if real else -1, stamp)
        self._open -= 1

    def _publish(self, visit: int, detector: int, row: int, stamp: float, published: float = NAN, attempt: int = 0
                 ) -> None:
        """Into the stream; to the pod that has been idle for longest, if there is one."""
        self._n_messages += 1
        self._open += 1
        message = Message(self._n_messages - 1, visit, detector, row, stamp,
                          self.env.now if published != published else published, attempt)
        message.troubled = bool(self._troubled[visit])
        if row >= 0 and not self._saved[row]:
            self.reason[row], self.times["published_s"][row] = "not taken", message.times[PUBLISHED]
        if self._idle:
            self._idle.popleft()[0].succeed(message)
            return
        self._account()
        message.queued = self.env.now
        self._waiting.append(message)
        if self.unlimited:
            self._start_pod(0.0)

    def _account(self) -> None:
        """Bring the areas under the two queues up to now."""
        now = self.env.now
        self._queue_area += len(self._waiting) * (now - self._accounted)
        self._busy_area += self._busy * (now - self._accounted)
        self._accounted = now

    # --- pods -------------------------------------------------------------------------------------------------------

    def _scaler(self) -> Events:
        """KEDA: at every poll those that are missing of the smallest number, else as its strategy counts."""
        env, pods, cap = self.env, self.config.pods, self.config.workers
        while True:
            while self._idle and env.now - self._idle[0][1] >= pods.idle_s:
                self._idle.popleft()[0].succeed(None)
            wanted = min(pods.smallest, cap) - self._alive
            if wanted <= 0:
                wanted = to_start(pods.scaling, len(self._waiting), self._alive, self._pending, cap)
            for _ in range(wanted):
                late = env.now > 0     # those of the evening are there
                spread = pods.startup_spread
                self._start_pod(pods.startup_s * np.exp(spread * self._startup.normal() - 0.5 * spread**2)
                                if late and pods.startup_s else 0.0)
            if self._alive + self._pending >= cap and self._starting < len(self._waiting):
                self._mark_capped()
            self.pulse(self)
            if not self._open:
                return
            yield env.timeout(pods.poll_s)

    def standing(self) -> tuple[tuple[int, int, int, int], bytearray]:
        """Waiting messages and pods at work, idle and starting; and which detector-visits are saved."""
        idle = len(self._idle)
        return (len(self._waiting), self._busy, idle, max(self._alive - self._busy - idle, 0)), self._saved

    def _mark_capped(self) -> None:
        """What waits now waits because no more pods may be."""
        for message in reversed(self._waiting):
            if message.capped:
                return
            message.capped = True

    def _start_pod(self, startup_s: float) -> None:
        self._alive += 1
        if startup_s:
            self._pending, self._starting = self._pending + 1, self._starting + 1
        self._pods.append([self.env.now, NAN, NAN, 0])
        self.env.process(self._pod(len(self._pods) - 1, startup_s))

    def _pod(self, number: int, startup_s: float) -> Events:
        """A worker's life: message after message, until it restarts, was idle for too long, or dies."""
        env, record, most = self.env, self._pods[number], self.config.pods.visits
        cache: deque[int] = deque(maxlen=self.config.pods.cache)
        if startup_s:
            yield from self._start_up(startup_s)
        record[1], done, lives = env.now, 0, True
        while lives and not (most and done >= most):
            self._account()
            if self._waiting:
                first = self._waiting.popleft()
                self._queue_waits += env.now - first.queued
                message: Message | None = first
            elif self.unlimited:
                break
            else:
                event = env.event()
                self._idle.append((event, env.now))
                message = yield event
                if message is None:
                    break
                self._account()
            assert message is not None
            self._busy += 1
            began = env.now
            lives = yield from self._take(number, message, cache, cold=done == 0 and not self.unlimited)
            self._account()
            self._busy_spans += env.now - began
            self._busy -= 1
            self._open -= 1
            done += 1
            if self.unlimited:
                break
        self._alive -= 1
        record[2], record[3] = env.now, done

    def _start_up(self, seconds: float) -> Events:
        """Pending until its container runs, then starting until it asks for a message."""
        share = self.config.pods.pending_share
        yield self.env.timeout(share * seconds)
        self._pending -= 1
        yield self.env.timeout((1.0 - share) * seconds)
        self._starting -= 1

    def _take(self, pod: int, message: Message, cache: "deque[int]", *, cold: bool
              ) -> Generator[simpy.Event, Any, bool]:
        """One message; whether the pod lives on."""
        env, row, front = self.env, message.row, self.config.front
        if env.now - message.stamp > front.expiry_s:
            self._fail(message, "expired")
            return True
        message.times[TAKEN], message.pod = env.now, pod
        if row >= 0:
            self.attempts[row] += 1
        message.limit, message.limit_reason = env.now + self.config.timeout_s, "timeout"
        kill = self._trouble("worker_killed", message) if message.attempt == 0 else None
        if kill is not None and kill.config.delay_s < self.config.timeout_s:
            message.limit, message.limit_reason = env.now + kill.config.delay_s, "killed"
        try:
            yield from self._work(message, cache, cold=cold)
            reason = ""
        except Ended as ended:
            reason = ended.reason
            self._fail(message, reason)
        if row >= 0 and (message.times[SAVED] == message.times[SAVED] or not self._saved[row]):
            self._keep(message)
        dies = reason in DIES
        if reason in RETRIABLE and row >= 0 and not self._saved[row]:
            unacknowledged = dies and front.acknowledge == "last"
            if unacknowledged or message.attempt < front.retries:
                env.process(self._again(message, front.redeliver_s if unacknowledged else 0.0))
        return not dies

    def _keep(self, message: Message) -> None:
        """The times of an attempt that saved, or that failed where none has saved yet."""
        row = message.row
        for name, value in zip(TIMES, message.times, strict=False):
            self.times[name][row] = value
        self.times["freed_s"][row] = self.env.now
        self.message[row], self.pod[row] = message.number, message.pod
        self.capped[row], self.warm[row] = message.capped, message.warm

    def _again(self, message: Message, after_s: float) -> Events:
        """A message that somebody claims, or that is asked for again."""
        self._open += 1
        self.counters["redelivered"] += 1
        yield self.env.timeout(after_s)
        self._publish(message.visit, message.detector, message.row, message.stamp, message.times[PUBLISHED],
                      message.attempt + 1)
        self._open -= 1

    def _fail(self, message: Message, reason: str) -> None:
        row = message.row
        if row < 0 or reason == "done already":
            self.counters["in_vain"] += 1
        elif not self._saved[row]:
            self.reason[row] = reason

    # --- a detector-visit -------------------------------------------------------------------------------------------

    def _work(self, message: Message, cache: "deque[int]", *, cold: bool) -> Events:
        """From the message to the end of the export; Ended where there will be no alerts."""
        env, row, times = self.env, message.row, message.times
        if row < 0:
            yield from self._wait_for_nothing(message, cache, cold=cold)
        missing = yield from self._preload(message, cache, cold=cold)
        times[PRELOADED] = env.now
        yield from self._image(message)
        if missing:
            yield from self._fall_back(message, missing)
        if message.troubled:
            yield from self._pixel_troubles(message)
        yield from self._measure_pixels(message)
        if not (yield from self._call(message, "satellites")):
            raise Ended("satellites")
        yield from self._spend(message, self._first[row])
        times[STANDARDIZED] = env.now
        yield from self._call(message, "reload")     # where it fails the objects of preload are used
        times[RELOADED] = env.now
        yield from self._spend(message, self._second[row])
        if self._fresh[row] > self.max_new_objects:
            raise Ended("too many new objects")
        yield from self._save(message)
        yield from self._send(message)
        if not (yield from self._call(message, "export")):
            self.counters["not_exported"] += 1

    def _fall_back(self, message: Message, missing: str) -> Events:
        """A simpler pipeline, which makes no alerts: to single frames, or to signature removal alone."""
        alone = missing == "no references"
        self.counters["isr_only" if alone else "single_frames"] += 1
        yield from self._spend(message, self._isr[message.row] if alone else self._single[message.row])
        yield from self._call(message, "export")
        raise Ended(missing)

    def _measure_pixels(self, message: Message) -> Events:
        """The pixel half, for which a pod's memory may be too small."""
        yield from self._spend(message, self._pixel[message.row])
        message.times[MEASURED] = self.env.now
        pods = self.config.pods
        if pods.memory_base_mb + pods.memory_source_mb * self._detected[message.row] > pods.memory_mb:
            raise Ended("out of memory")

    def _preload(self, message: Message, cache: "deque[int]", *, cold: bool) -> Generator[simpy.Event, Any, str]:
        """What is known of the field; why a simpler pipeline has to do, or ""."""
        missing = ""
        if cold and self.config.pods.cold_s:
            yield from self._spend(message, self.config.pods.cold_s)
        if not (yield from self._call(message, "registry")):
            raise Ended("registry")
        if self._no_template[message.visit] or not (yield from self._call(message, "templates")):
            missing = "no template"
        if message.troubled and self._trouble("references_missing", message) is not None:
            missing = "no references"     # of no pipeline but the last
        if message.detector in cache:
            message.warm = True
        elif (yield from self._call(message, "calibs")):
            cache.append(message.detector)
        else:
            raise Ended("no calibrations")
        unknown = yield from self._look_up(message)
        return missing or unknown

    def _look_up(self, message: Message) -> Generator[simpy.Event, Any, str]:
        """Objects, their history, ephemerides; "no preload" without the first two."""
        for step in ("objects", "history"):
            if not (yield from self._call(message, step)):
                return "no preload"
        if not (yield from self._call(message, "ephemerides")):
            self.counters["without_ephemerides"] += 1
        return ""

    def _image(self, message: Message) -> Events:
        """Wait for the images: presence first, then notifications, and at the end presence again; some will do."""
        env, row, front = self.env, message.row, self.config.front
        first, last, now = self._first_image[row], self._arrivals[row], env.now
        deadline = now + 2.0 * front.duration_s + front.image_timeout_s
        if last <= now:
            seen = now
        else:
            lost = self._trouble("notification_lost", message) is not None
            seen = deadline if lost else min(last + front.notification_s, deadline)
            yield from self._spend(message, seen - now)
            if first > seen:
                raise Ended("no image")
        message.times[ARRIVED], message.times[SEEN] = last if last <= seen else first, seen
        if self._turned[message.visit] > front.max_rotation_deg:
            raise Ended("mismatch")     # its exposures are dropped

    def _wait_for_nothing(self, message: Message, cache: "deque[int]", *, cold: bool) -> Events:
        """A visit that is announced and never taken: it preloads as the one beside it does, and waits to the end."""
        yield from self._preload(message, cache, cold=cold)
        yield from self._spend(message, 2.0 * self.config.front.duration_s + self.config.front.image_timeout_s)
        raise Ended("no image")

    def _pixel_troubles(self, message: Message) -> Events:
        row = message.row
        if self._trouble("image_corrupt", message) is not None:
            yield from self._spend(message, float(self.numbers.work[row, COLUMN["isr"]]))
            raise Ended("corrupt image")
        if self._trouble("worker_hung", message) is not None:
            yield from self._spend(message, np.inf)
        if self._trouble("out_of_memory", message) is not None:
            yield from self._spend(message, self._pixel[row])
            raise Ended("out of memory")

    def _save(self, message: Message) -> Events:
        """The one write: all of a detector-visit or nothing, and only once."""
        row = message.row
        if not (yield from self._call(message, "save")):
            raise Ended("apdb")
        if self._saved[row]:
            raise Ended("done already")
        self._saved[row] = True
        message.times[SAVED] = self.env.now
        self.reason[row] = "committed, not sent"
        if message.troubled and self._trouble("commits_then_fails", message) is not None:
            self.counters["unanswered"] += 1
            self._leave(message, self.env.now)
            raise Ended("committed, not sent")

    def _send(self, message: Message) -> Events:
        """Packets to Kafka: at once, or by whoever looks through the outbox later."""
        env, publication = self.env, self.config.publication
        if publication.order == "write_first":
            yield from self._spend(message, self._cost["package"][message.row])
        down = self._trouble("kafka_down", message)
        if down is not None and down.at(env.now):
            self._leave(message, down.end_s)
            if publication.order == "write_first":
                self.reason[message.row] = "kafka"
                yield from self._spend(message, publication.delivery_timeout_s)
            return
        try:
            yield from self._spend(message, self._cost["send"][message.row])
        except Ended:
            self._leave(message, env.now)
            raise
        self._publish_alerts(message)

    def _leave(self, message: Message, until: float) -> None:
        """Packets that their worker does not send: the outbox keeps them, without one they are lost."""
        if self.config.publication.order == "outbox":
            self.env.process(self._sweep(message, until))

    def _sweep(self, message: Message, until: float) -> Events:
        every = self.config.publication.sweep_s
        self._open += 1
        yield self.env.timeout(max((np.floor(until / every) + 1) * every - self.env.now, 0.0))
        self._publish_alerts(message)
        self._open -= 1

    def _publish_alerts(self, message: Message) -> None:
        """Acknowledged by Kafka; from there to all brokers over one link."""
        row, now = message.row, self.env.now
        if self.n_sent[row] or self.times["sent_s"][row] == self.times["sent_s"][row]:
            self.n_sent_twice[row] += self._alerts[row]
            return
        self.n_sent[row], self.reason[row] = self._alerts[row], ""
        slow = self._trouble("kafka_throttled", message)
        factor = slow.config.factor if slow is not None and slow.at(now) else 1.0
        start, end, _ = self._egress.book(now, self._seconds_per_byte * self._bytes[row] * factor, np.inf)
        self._calls.extend((row, message.number, STEP["egress"], now, start, end))
        self.times["sent_s"][row], self.times["delivered_s"][row] = now, end

    # --- time -------------------------------------------------------------------------------------------------------

    def _spend(self, message: Message, seconds: float) -> Events:
        """Work or wait, until the worker's time is over."""
        left = message.limit - self.env.now
        if seconds < left:
            yield self.env.timeout(seconds)
            return
        yield self.env.timeout(left)
        raise Ended(message.limit_reason)

    def _call(self, message: Message, step: str) -> Generator[simpy.Event, Any, bool]:
        """A Step that a shared service does; whether it did. Tries again as its caller's settings say."""
        env, row, number = self.env, message.row, STEP[step]
        desk, config, name = self._desks[number]
        cost = self._cost[step][row if row >= 0 else message.visit * self.n_detectors + message.detector]
        seconds, tries = cost, config.tries
        for attempt in range(1, tries + 1):
            now = env.now
            refused = False
            if message.troubled:
                refused, factor = self._service_trouble(message, name)
                seconds = cost * factor
            if not refused:
                until = min(message.limit, now + config.timeout_s)
                start, end, served = desk.book(now, seconds, until)
                self._calls.extend((row, message.number, number, now, start, end))
                if end > now:
                    yield env.timeout(end - now)
                if served:
                    return True
                if end >= message.limit:
                    raise Ended(message.limit_reason)
            if attempt < tries:
                paused = min(config.pause_s, message.limit - env.now)
                self._calls.extend((row, message.number, number, env.now, env.now + paused, env.now + paused))
                yield from self._spend(message, config.pause_s)
        return False

    def _service_trouble(self, message: Message, name: str) -> tuple[bool, float]:
        """(refused, factor on the time) of a call now."""
        refused, factor = False, 1.0
        for kind in ("service_down", "service_slow"):
            for trouble in self._by_kind.get(kind, ()):
                c = trouble.config
                if c.service == name and trouble.at(self.env.now) and trouble.of(message.visit, message.detector):
                    refused |= kind == "service_down"
                    factor *= c.factor
        return refused, factor

    def _trouble(self, kind: str, message: Message) -> Trouble | None:
        """The first trouble of a kind that touches a message's detector-visit."""
        if not message.troubled:
            return None
        return next((t for t in self._by_kind.get(kind, ()) if t.of(message.visit, message.detector)), None)

    # --- records ----------------------------------------------------------------------------------------------------

    def _ran(self) -> Ran:
        self._account()
        n, c, plan = len(self.numbers.counts), self.numbers.counts, self.plan
        rows = np.zeros(n, PASSAGE)
        for name, column in (("visit", plan.visit), ("field", plan.field), ("shutter_close_s", plan.closes_s)):
            rows[name] = np.repeat(column, self.n_detectors)
        rows["detector"] = np.tile(np.arange(self.n_detectors), len(plan))
        rows["readout_end_s"] = rows["shutter_close_s"] + self.config.readout_s
        for name in TIMES:
            rows[name] = np.frombuffer(self.times[name], float)
        rows["message"], rows["pod"], rows["attempts"] = self.message, self.pod, self.attempts
        rows["capped"], rows["warm"] = np.frombuffer(self.capped, np.uint8), np.frombuffer(self.warm, np.uint8)
        for name in ("n_detected", "n_satellites", "n_quality", "n_reliability", "n_new_objects", "n_alerts",
                     "n_fresh", "bytes"):
            rows[name] = c[name]
        rows["n_sent"], rows["n_sent_twice"] = self.n_sent, self.n_sent_twice
        rows["reason"] = [reason.encode() for reason in self.reason]
        rows["reference_s"] = rows["excess_s"] = NAN
        return Ran(rows, _calls(self._calls), _pods(self._pods), self._next_visits(), dict(self.counters),
                   self._queue_area, self._queue_waits, self._busy_area, self._busy_spans, float(self.env.now))


def _calls(flat: "array[float]") -> np.ndarray:
    table = np.frombuffer(flat, float).reshape(-1, 6)
    rows = np.zeros(len(table), CALL)
    for k, name in enumerate(CALL.names or ()):
        rows[name] = table[:, k]
    return rows


def _pods(records: list[list[float]]) -> np.ndarray:
    rows = np.zeros(len(records), POD)
    rows["pod"] = np.arange(len(records))
    if records:
        table = np.array(records, float)
        rows["created_s"], rows["ready_s"], rows["ended_s"], rows["visits"] = table.T
    return rows


__all__ = ["Message", "PromptProcessing", "Ran"]
