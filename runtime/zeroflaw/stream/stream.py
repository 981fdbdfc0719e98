"""Streams of frames: the encoders of one frame run while the cascade of the one before does."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, NoReturn, Protocol, Self, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from zeroflaw.inspection import Inspection, stamped
from zeroflaw.pipeline.encoding.frame import EncodedFrame
from zeroflaw.pipeline.intake import INHERITED, CameraSettings, Inherited
from zeroflaw.records.stamp import new_stamp
from zeroflaw.stream.closing_at_exit import close_at_exit
from zeroflaw.stream.frame_job import FrameJob
from zeroflaw.stream.result import StreamHealth, StreamResult, require_sound
from zeroflaw_engines import arguments
from zeroflaw_engines.errors import StreamError, StreamFullError, ZeroflawError
from zeroflaw_engines.image_files.frame import ChannelOrder
from zeroflaw_engines.process.lifetime import HomeProcess, refuse_copy

WhenFull = Literal["wait", "drop_oldest", "refuse"]

_log = logging.getLogger(__name__)
_Half = TypeVar("_Half", EncodedFrame, Inspection)


class TwoHalves(Protocol):
    """What a stream needs of an `Inspector`; see its `encode_frame` and `decode_frame`."""

    def encode_frame(
        self,
        image: NDArray[Any],
        *,
        product: str | None = None,
        channel_order: ChannelOrder | Inherited = INHERITED,
        white_level: float | Inherited | None = INHERITED,
    ) -> EncodedFrame:
        """Do the first half of an inspection."""

    def decode_frame(self, encoded: EncodedFrame, *, trace: bool = False) -> Inspection:
        """Do the second half."""


class InspectionStream:
    """Frames in, results out in the same order; one thread or several may do either.

    Results are those of `Inspector.inspect`, to the last bit. At most `capacity` frames wait for
    their inspection, and at most `capacity` inspections for `poll`: beyond that the stream stops
    until some are taken, so memory is bounded. With `wait`, therefore, a thread that submits
    more than `2 * capacity` frames without polling needs another one that polls.

    Use it as a context manager, or `close` it; the Inspector stays open, and is closed after it.
    Like an Inspector it works in the process that opened it, and in none of its forks.
    """

    def __init__(
        self,
        inspector: TwoHalves,
        *,
        capacity: int = 8,
        when_full: WhenFull = "wait",
        pipelined: bool = True,
        channel_order: ChannelOrder | Inherited = INHERITED,
        white_level: float | Inherited | None = INHERITED,
    ) -> None:
        """Open a stream.

        Args:
            inspector: An `Inspector`; it may do other work at the same time.
            capacity: Frames that may wait for their inspection, at least 1.
            when_full: What `submit` does when that many wait: `wait` until there is room,
                `drop_oldest` of those that wait, or `refuse` the new one.
            pipelined: Whether encoders of a frame run beside the cascade of the one before;
                without it one frame ends before the next begins.
            channel_order: Of the arrays of this stream's camera; default: the Inspector's.
            white_level: The value that is white, of these arrays; default: the Inspector's.

        Raises:
            StreamError: An argument is of the wrong kind, or out of its range.
        """
        for half in ("encode_frame", "decode_frame"):
            if not callable(getattr(inspector, half, None)):
                raise StreamError(
                    f"inspector is a {type(inspector).__name__}, which has no {half}",
                    "give an Inspector",
                )
        arguments.whole_number("capacity", capacity, minimum=1, error=StreamError)
        arguments.choice("when_full", when_full, get_args(WhenFull), error=StreamError)
        arguments.flag("pipelined", pipelined, error=StreamError)
        self._camera = CameraSettings(channel_order, white_level)
        self._camera.require_valid(StreamError)
        self._inspector = inspector
        self._capacity = capacity
        self._when_full = when_full
        self._changed = threading.Condition()
        self._waiting: deque[FrameJob] = deque()
        self._encoded: deque[tuple[FrameJob, EncodedFrame]] = deque()
        self._results: dict[int, StreamResult] = {}
        self._submitted = 0
        self._delivered = 0
        self._counts = dict.fromkeys(("finished", "failed", "dropped", "late", "held"), 0)
        self._running = 0
        self._encoding_ended = False
        self._closed = False
        targets: list[Callable[[], None]] = [self._encode_frames]
        targets += [self._decode_frames] if pipelined else []
        self._pipelined = pipelined
        self._home = HomeProcess(self, "this stream")
        self._threads = [
            threading.Thread(target=target, name=f"zeroflaw-stream{target.__name__}", daemon=True)
            for target in targets
        ]
        for thread in self._threads:
            thread.start()
        close_at_exit(self)

    def submit(
        self,
        frame: NDArray[Any],
        *,
        product: str | None = None,
        channel_order: ChannelOrder | Inherited = INHERITED,
        white_level: float | Inherited | None = INHERITED,
        trace: bool = False,
        frame_id: str | None = None,
        part_id: str | None = None,
        camera_id: str | None = None,
        deadline_ms: float | None = None,
        copy: bool = True,
        timeout: float | None = None,
    ) -> int:
        """Hand a frame over to be inspected.

        A frame or a product that is not acceptable does not raise: its result has the error.

        Args:
            frame: An array as `Inspector.inspect` takes it. Of a file, give what `read_image`
                returns.
            channel_order: Order of an array's colour channels; default: the stream's.
            white_level: Value that counts as white; default: the stream's.
            trace: Whether the inspection says how its mask came about.
            frame_id: Of the caller's own; comes back with the result.
            part_id: The same of the part.
            camera_id: The same of the camera.
            deadline_ms: From now; a result that would come later is not an acceptance.
            copy: Whether the frame is copied now, so that the camera may write into its buffer
                again at once. Without it the buffer must stay as it is until the result is out.
            timeout: Seconds that `wait` waits for room; None waits as long as it takes.

        Returns:
            The frame's ticket: 1, 2, 3, ...

        Raises:
            StreamFullError: There is no room, and the stream refuses or has waited in vain.
            StreamError: The stream is closed, or an argument is of the wrong kind or out of its
                range.
            ProcessError: This is a fork of the process that opened the stream.
            FrameError: A name is not text.
        """
        self._home.require()
        if deadline_ms is not None:
            arguments.number("deadline_ms", deadline_ms, above=0, unit="ms", error=StreamError)
        for name, value in (("trace", trace), ("copy", copy)):
            arguments.flag(name, value, error=StreamError)
        timeout = _seconds(timeout)
        now = time.perf_counter()
        stamp = new_stamp(part_id=part_id, frame_id=frame_id, camera_id=camera_id)
        image = frame.copy() if copy and isinstance(frame, np.ndarray) else frame
        camera = CameraSettings(channel_order, white_level).over(self._camera)
        options = {"product": product, **vars(camera)}
        with self._changed:
            self._require_open()
            self._make_room(timeout)
            self._submitted += 1
            job = FrameJob(self._submitted, image, options, trace, stamp, now, deadline_ms)
            self._waiting.append(job)
            self._changed.notify_all()
            return job.ticket

    def poll(self, timeout: float | None = None) -> StreamResult | None:
        """Return the next result, in the order of the frames.

        Args:
            timeout: Seconds to wait for it; 0 looks only; None waits as long as it takes.

        Returns:
            None if it has not come by then, or if the stream is closed and all are out.
        """
        self._home.require()
        timeout = _seconds(timeout)
        with self._changed:
            self._changed.wait_for(self._has_next_or_never_will, timeout)
            result = self._results.pop(self._delivered + 1, None)
            if result is not None:
                self._delivered += 1
                self._changed.notify_all()
            return result

    def drain(self) -> Iterator[StreamResult]:
        """Yield results until those of all frames are out; for the only thread that polls."""
        self._home.require()
        while self._delivered < self._submitted:
            result = self.poll()
            if result is not None:
                yield result

    def health(self) -> StreamHealth:
        """Count what became of the frames so far."""
        self._home.require()
        with self._changed:
            return StreamHealth(
                submitted=self._submitted,
                queued=len(self._waiting),
                running=self._running,
                **self._counts,
            )

    def close(self) -> None:
        """Take no more frames, drop those that wait, and end those that are under way.

        Results that are not yet taken, and those of the dropped frames, can still be polled. In
        a fork of the process that opened the stream it does nothing.
        """
        if not self._home.is_here:
            return
        with self._changed:
            self._closed = True
            while self._waiting:
                self._drop_oldest()
            self._changed.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():  # an inspector may close it, too
                thread.join()

    def __reduce__(self) -> NoReturn:
        refuse_copy("a stream", "send the bundle's path, and open a stream there")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require_open(self) -> None:
        if self._closed:
            raise StreamError("this stream is closed", "open another one")

    def _make_room(self, timeout: float | None) -> None:
        """See to it that a frame can be taken; the lock is held."""
        if self._when_full == "drop_oldest":
            while len(self._waiting) >= self._capacity:
                self._drop_oldest()
            return
        seconds = 0.0 if self._when_full == "refuse" else timeout
        room = self._changed.wait_for(
            lambda: self._closed or len(self._waiting) < self._capacity, seconds
        )
        self._require_open()
        if not room:
            raise StreamFullError(
                f"{len(self._waiting)} frames wait already, and that is the stream's capacity",
                "submit more slowly, poll more often, or let the stream drop the oldest",
            )

    def _drop_oldest(self) -> None:
        job = self._waiting.popleft()
        self._counts["dropped"] += 1
        self._results[job.ticket] = job.result(dropped=True)
        self._changed.notify_all()

    def _has_next_or_never_will(self) -> bool:
        if self._delivered + 1 in self._results:
            return True
        return self._closed and self._delivered == self._submitted

    def _encode_frames(self) -> None:
        """Run the encoders, one frame after the other: the first thread."""
        try:
            while (job := self._next_job()) is not None:
                encoded = self._attempt(job, partial(self._encode, job))
                if encoded is None:
                    continue
                if not self._pipelined:
                    self._decode(job, encoded)
                    continue
                with self._changed:
                    self._changed.wait_for(lambda: not self._encoded)
                    self._encoded.append((job, encoded))
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._encoding_ended = True
                self._changed.notify_all()

    def _decode_frames(self) -> None:
        """Run everything that follows the encoders: the second thread."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._encoded or self._encoding_ended)
                if not self._encoded:
                    return
                job, encoded = self._encoded.popleft()
                self._changed.notify_all()
            self._decode(job, encoded)

    def _next_job(self) -> FrameJob | None:
        """Return the frame that has waited longest; None when the stream is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            job = self._waiting.popleft()
            job.begun = time.perf_counter()
            self._running += 1
            self._changed.notify_all()
            return job

    def _encode(self, job: FrameJob) -> EncodedFrame:
        image, job.image = job.image, None  # or it would be held until the cascade has ended
        return self._inspector.encode_frame(image, **job.options)

    def _decode(self, job: FrameJob, encoded: EncodedFrame) -> None:
        done = self._attempt(job, partial(self._decoded, job, encoded))
        if done is None:
            return
        if job.is_late():
            self._put("late", job.result(deadline_missed=True, late_inspection=done))
        else:
            self._put("finished", job.result(inspection=done))

    def _decoded(self, job: FrameJob, encoded: EncodedFrame) -> Inspection:
        inspection = self._inspector.decode_frame(encoded, trace=job.trace)
        require_sound(inspection)
        return stamped(inspection, job.stamp)

    def _attempt(self, job: FrameJob, half: Callable[[], _Half]) -> _Half | None:
        """Do half an inspection; what goes wrong becomes the frame's result, and gives None."""
        if job.is_late():
            self._put("late", job.result(deadline_missed=True))
            return None
        try:
            return half()
        except ZeroflawError as error:
            self._put("failed", job.result(error=error))
        except Exception as error:
            _log.exception("the inspection of frame %s failed", job.ticket)
            failure = StreamError(
                f"the inspection of frame {job.ticket} failed: {type(error).__name__}: {error}",
                "this is a defect of zeroflaw or of a backend: please report it with the log",
            )
            failure.__cause__ = error
            self._put("failed", job.result(error=failure))
        return None

    def _put(self, count: str, result: StreamResult) -> None:
        with self._changed:
            # The result that is due next is never held back: `poll` waits for it.
            self._changed.wait_for(
                lambda: (
                    self._closed
                    or result.ticket == self._delivered + 1
                    or len(self._results) < self._capacity
                )
            )
            self._running -= 1
            self._counts[count] += 1
            self._counts["held"] += count == "finished" and result.decision == "hold"
            self._results[result.ticket] = result
            self._changed.notify_all()


def _seconds(timeout: float | None) -> float | None:
    """Return a timeout that Python's locks take."""
    if timeout is None:
        return None
    seconds = arguments.number("timeout", timeout, minimum=0, unit="seconds", error=StreamError)
    return min(seconds, threading.TIMEOUT_MAX)
