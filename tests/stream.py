"""A stand-in for a CUDA stream: work is put on it at once and done later."""


class Stream:
    """A device that works when told to; its time is in milliseconds."""

    def __init__(self, working=True):
        self.handed_over = self.done = 0.0
        self.working = working
        self.failed = False
        self.made = 0

    def hand_over(self, milliseconds):
        """Put work on the stream."""
        self.handed_over += milliseconds

    def catch_up(self):
        """Do all the work there is."""
        self.done = self.handed_over

    def event(self):
        """An event that has not been recorded."""
        self.made += 1
        return Event(self)


class Event:
    """Passed when the stream has done what was on it when the event was recorded."""

    def __init__(self, stream):
        self.stream, self.at = stream, None

    def _check(self):
        if self.stream.failed:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def record(self):
        self._check()
        self.at = self.stream.handed_over

    def query(self):
        self._check()
        return self.stream.working and self.stream.done >= self.at

    def elapsed_time(self, end):
        self._check()
        assert self.query(), "asking for a time that is not there yet waits"
        assert end.query()
        return end.at - self.at
