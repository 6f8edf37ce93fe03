"""A shared service: some servers and one queue, first come, first served.

Start and end of a call are known when it is asked for, since they depend on earlier calls alone (Kiefer & Wolfowitz
1955): one event per call, no matter how long the queue. Whoever will have given up by then is never served, so that
nothing is kept free for those who left.
"""

import heapq


class Service:
    """`servers` calls at once; 0: without limit. Calls are booked in the order of time."""

    __slots__ = ("_free",)

    def __init__(self, servers: int) -> None:
        self._free = [0.0] * servers     # when each server is free again: a heap

    def book(self, now: float, seconds: float, until: float) -> tuple[float, float, bool]:
        """(start, end, served) of a call that takes `seconds` and whose caller leaves at `until`.

        A call not served to its end ends at `until`; one that is not begun by then starts there too.

        Examples
        --------
        >>> desk = Service(1)
        >>> desk.book(0.0, 5.0, 100.0), desk.book(1.0, 5.0, 4.0), desk.book(2.0, 5.0, 100.0)
        ((0.0, 5.0, True), (4.0, 4.0, False), (5.0, 10.0, True))
        """
        free = self._free
        start = now
        if free and free[0] > now:
            start = free[0]
            if start >= until:
                return until, until, False
        end = start + seconds
        served = end <= until
        if not served:
            end = until
        if free:
            heapq.heapreplace(free, end)
        return start, end, served


__all__ = ["Service"]
