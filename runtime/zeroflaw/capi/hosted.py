"""An inspector behind a handle: calls wait for each other, clones share the weights."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from zeroflaw.capi.abi import ABI_VERSION, HealthStruct, State, Status, has_field
from zeroflaw.capi.configuration import Configuration
from zeroflaw.capi.errors import EmbeddingError, text_of
from zeroflaw.capi.frames import Request
from zeroflaw.capi.outcome import Outcome, outcome_of
from zeroflaw.inspection import stamped
from zeroflaw.inspector import Inspector
from zeroflaw.records.stamp import new_stamp
from zeroflaw.station.diagnosis import installed_versions
from zeroflaw.stream.result import StreamHealth, StreamResult, require_sound
from zeroflaw.stream.stream import InspectionStream
from zeroflaw_engines.errors import EngineError, StreamError
from zeroflaw_engines.process.lifetime import HomeProcess
from zeroflaw_engines.version import __version__


class SharedInspector:
    """An Inspector that is closed when the last of those who share it lets go."""

    def __init__(self, inspector: Inspector) -> None:
        """Hold it once."""
        self.inspector = inspector
        self._holders = 1
        self._lock = threading.Lock()

    def hold(self) -> SharedInspector:
        """Hold it once more."""
        with self._lock:
            self._holders += 1
        return self

    def let_go(self) -> None:
        """Let go of it; the last closes it."""
        with self._lock:
            self._holders -= 1
            last = self._holders == 0
        if last:
            self.inspector.close()


@dataclass
class _Counts:
    inspected: int = 0
    failed: int = 0
    late: int = 0
    held: int = 0
    running: int = 0
    polled: int = 0


class HostedInspector:
    """One handle of the C ABI.

    Any thread may call any method. `inspect`, `warm_up` and `close` wait for each other; `poll`,
    `describe` and `report_health` wait for nobody, and `reload` for no inspection.
    """

    def __init__(self, shared: SharedInspector, configuration: Configuration) -> None:
        """Take over one hold of the shared Inspector."""
        self._shared = shared
        self._configuration = configuration
        self._home = HomeProcess(self, "this inspector")
        self._inspect_lock = threading.Lock()
        self._state_lock = threading.Lock()
        self._stream: InspectionStream | None = None
        self._counts = _Counts()
        self._state = State.INITIALIZED
        self._last_error = ""
        self._closed = False

    @classmethod
    def load(cls, configuration: Configuration) -> HostedInspector:
        """Verify the bundle and load its engines; see `Inspector.load` for what it raises."""
        cache = configuration.model_cache
        inspector = Inspector.load(
            configuration.bundle,
            configuration.backend,
            precision=configuration.precision,
            threads=configuration.threads,
            device=configuration.device,
            model_cache=None if cache is None else Path(cache),
            encoder_schedule=configuration.encoder_schedule,
            max_frame_pixels=configuration.max_frame_pixels,
        )
        return cls(SharedInspector(inspector), configuration)

    def clone(self) -> HostedInspector:
        """Return another handle on the same engines, with a queue of its own."""
        self._home.require()
        with self._state_lock:
            self._require_open()
            clone = HostedInspector(self._shared.hold(), self._configuration)
        clone._state = self._state if self._state is State.READY else State.INITIALIZED
        return clone

    def warm_up(self, runs: int) -> None:
        """Run every engine on zeros; see `Inspector.warm_up`."""
        self._home.require()
        if runs < 1:
            raise EmbeddingError(f"{runs} runs do not warm anything up", "give 1 or more")
        with self._inspect_lock:
            self._require_open()
            self._shared.inspector.warm_up(runs)
            self._state = State.READY

    def reload(self) -> None:
        """Take over the products that the bundle has now, in all clones; see `Inspector.reload`."""
        self._home.require()
        self._require_open()
        self._shared.inspector.reload()

    def inspect(self, request: Request) -> Outcome:
        """Inspect a frame; the time that it waits for its turn counts.

        Raises:
            ZeroflawError: There is no result; see `Inspector.inspect`.
        """
        self._home.require()
        called = time.perf_counter()
        stamp = new_stamp(
            part_id=request.part_id, frame_id=request.frame_id, camera_id=request.camera_id
        )
        with self._inspect_lock, self._one_running():
            self._require_open()
            began = time.perf_counter()
            inspection = self._shared.inspector.inspect(
                request.image,
                product=request.product,
                channel_order=request.channel_order,
                white_level=request.white_level,
            )
            require_sound(inspection)
            inspection = stamped(inspection, stamp)
        spent = 1e3 * (time.perf_counter() - called)
        late = request.deadline_ms is not None and spent > request.deadline_ms
        with self._state_lock:
            self._state = State.READY
            self._counts.late += late
            self._counts.inspected += not late
            self._counts.held += not late and inspection.decision == "hold"
        result = StreamResult(
            ticket=0,
            stamp=stamp,
            product=inspection.product,
            inspection=None if late else inspection,
            deadline_missed=late,
            late_inspection=inspection if late else None,
            deadline_ms=request.deadline_ms,
            queue_ms=1e3 * (began - called),
            latency_ms=spent,
        )
        return outcome_of(result)

    def submit(self, request: Request) -> int:
        """Queue a copy of a frame; return its ticket.

        Raises:
            StreamFullError: As many frames wait as may, and new ones are refused.
        """
        self._home.require()
        stream = self._open_stream()
        try:
            return stream.submit(
                request.image,
                product=request.product,
                channel_order=request.channel_order,
                white_level=request.white_level,
                frame_id=request.frame_id,
                part_id=request.part_id,
                camera_id=request.camera_id,
                deadline_ms=request.deadline_ms,
            )
        except StreamError:
            self._require_open()  # destroyed meanwhile, and that is what the caller must know
            raise

    def poll(self, seconds: float) -> Outcome | None:
        """Return what became of the next submitted frame; None if that is not known in time."""
        self._home.require()
        with self._state_lock:
            self._require_open()
            stream = self._stream
        if stream is None:  # nothing was submitted, and another thread may do so meanwhile
            time.sleep(seconds)
            return None
        result = stream.poll(seconds)
        if result is None:
            return None
        with self._state_lock:
            self._counts.polled += 1
            if result.inspection is not None:
                self._state = State.READY
            elif result.error is not None:
                self._note_failure(result.error)
        return outcome_of(result)

    def describe(self) -> dict[str, object]:
        """Return what it is made of, for people and logs."""
        self._home.require()
        self._require_open()
        inspector = self._shared.inspector
        bundle = inspector.bundle  # once: it may be reloaded meanwhile
        products = sorted(bundle.manifest.products)
        return {
            "zeroflaw": __version__,
            "abi_version": ABI_VERSION,
            "bundle": str(bundle.path),
            "bundle_digest": bundle.identity,
            "products": products,
            "references": {name: bundle.reference_digest(name) for name in products},
            "backend": inspector.backend,
            "queue_size": self._configuration.queue_size,
            "when_full": self._configuration.when_full,
            "encoder_schedule": self._configuration.encoder_schedule,
            "max_frame_pixels": self._configuration.max_frame_pixels,
            "versions": installed_versions(),
        }

    def report_health(self, report: HealthStruct) -> None:
        """Fill a health report; never wait for an inspection."""
        self._home.require()
        with self._state_lock:
            self._require_open()
            counts, stream = self._counts, self._stream
            queue = StreamHealth() if stream is None else stream.health()
            report.state = self._state
            report.queue_size = self._configuration.queue_size
            report.queued = queue.queued
            report.running = counts.running + queue.running
            report.results = queue.submitted - queue.queued - queue.running - counts.polled
            report.inspected = counts.inspected + queue.finished
            report.failed = counts.failed + queue.failed
            report.late = counts.late + queue.late
            report.dropped = queue.dropped
            report.heartbeat = report.inspected + report.failed + report.late
            if has_field(report, "held"):
                report.held = counts.held + queue.held
            # Cut between characters, not within one.
            report.last_error = self._last_error.encode()[:511].decode(errors="ignore").encode()

    def close(self) -> None:
        """Wait for the calls under way, drop what waits, and let go of the engines.

        In a fork of the process that made it, it does nothing.
        """
        if not self._home.is_here:
            return
        with self._state_lock:
            if self._closed:
                return
            self._closed = True
            stream = self._stream
        if stream is not None:
            stream.close()
        with self._inspect_lock:
            self._shared.let_go()

    def _open_stream(self) -> InspectionStream:
        with self._state_lock:
            self._require_open()
            if self._stream is None:
                self._stream = InspectionStream(
                    self._shared.inspector,
                    capacity=self._configuration.queue_size,
                    when_full=self._configuration.when_full,
                )
            return self._stream

    @contextmanager
    def _one_running(self) -> Iterator[None]:
        """Count an inspection that is under way, and note how it fails."""
        with self._state_lock:
            self._counts.running += 1
        try:
            yield
        except Exception as error:
            with self._state_lock:
                self._counts.failed += 1
                self._note_failure(error)
            raise
        finally:
            with self._state_lock:
                self._counts.running -= 1

    def _note_failure(self, error: Exception) -> None:
        """Keep the text; a frame that cannot be inspected says nothing against the engines."""
        self._last_error = text_of(error)
        if isinstance(error, EngineError):
            self._state = State.FAILING

    def _require_open(self) -> None:
        if self._closed:
            raise EmbeddingError(
                "this inspector has been destroyed", "create another one", Status.INVALID_HANDLE
            )
