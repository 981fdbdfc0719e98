"""One execution context of a built engine, and the CUDA graph recorded of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.sessions.cuda import Cuda, CudaStream, release
from zeroflaw_engines.sessions.cuda_memory import capture_of_this_thread
from zeroflaw_engines.sessions.tensorrt.messages import errors_said

_log = logging.getLogger(__name__)


class TensorRtProgram:
    """An execution context over fixed addresses; as a CUDA graph once it was captured.

    Args:
        context: TensorRT's execution context, for this program alone.
        addresses: Device address of every input and output.
    """

    def __init__(
        self,
        cuda: Cuda,
        context: Any,  # noqa: ANN401 - TensorRT's own type, loaded lazily
        addresses: Mapping[str, int],
        engine: str,
    ) -> None:
        self._cuda = cuda
        self._context = context
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._seen: set[tuple[tuple[int, ...], ...]] = set()
        self._graph: Any = None
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise EngineError(
                    f"TensorRT refuses an address for {name} of {engine}",
                    "build the engine again with this version of zeroflaw",
                )

    @property
    def captured(self) -> bool:
        """Whether it runs as a CUDA graph."""
        return self._graph is not None

    def set_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Set the shapes of all inputs.

        Returns:
            Whether they are new to it: kernels are compiled for each.

        Raises:
            EngineError: TensorRT refuses one.
        """
        if self._shapes == shapes:
            return False
        self._shapes = {}
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise EngineError(
                    f"the engine of {self._engine} was not built for {name} of shape {list(shape)}",
                    "build the engine again for such shapes",
                )
        self._shapes = dict(shapes)
        known = len(self._seen)
        self._seen.add(tuple(shapes[name] for name in sorted(shapes)))
        return len(self._seen) > known

    def capture(self, stream: CudaStream) -> str | None:
        """Record the context's work; it must have run with these shapes before.

        Returns:
            Why it could not be recorded, and goes on without a graph; None if it was.
        """
        if self._graph is not None:
            return None
        can = getattr(self._context, "is_stream_capturable", None)  # TensorRT-RTX alone has it
        if can is not None and not can(stream.handle):
            return "TensorRT-RTX says that it cannot be captured"
        try:
            self._graph = self._recorded(stream)
        except EngineError as error:
            # The thread's last error is that of the capture, which is given up.
            self._cuda.runtime.cudaGetLastError()
            return error.cause
        return None

    def run(self, stream: CudaStream) -> None:
        """Put the work into a stream.

        Raises:
            EngineError: TensorRT or CUDA failed.
        """
        if self._graph is not None:
            self._cuda.call("cudaGraphLaunch", self._graph, stream.stream)
        else:
            self._enqueue(stream)

    def close(self) -> None:
        """Release the graph and the context."""
        graph, self._graph, self._context = self._graph, None, None
        if graph is not None:
            release(
                f"the CUDA graph of {self._engine}",
                [lambda: self._cuda.call("cudaGraphExecDestroy", graph)],
            )

    def _recorded(self, stream: CudaStream) -> Any:  # noqa: ANN401 - CUDA's own type
        modes = self._cuda.runtime.cudaStreamCaptureMode
        with capture_of_this_thread():
            self._cuda.call(
                "cudaStreamBeginCapture", stream.stream, modes.cudaStreamCaptureModeThreadLocal
            )
            try:
                self._enqueue(stream)
            except BaseException:
                self._give_capture_up(stream)
                raise
            recorded = self._cuda.call("cudaStreamEndCapture", stream.stream)
        try:
            return self._cuda.call("cudaGraphInstantiate", recorded, 0)
        finally:
            self._cuda.call("cudaGraphDestroy", recorded)

    def _give_capture_up(self, stream: CudaStream) -> None:
        """End a capture that failed, or the stream could not be used any more.

        CUDA has an error of its own for the end of such a capture, which tells nothing.
        """
        try:
            recorded = self._cuda.call("cudaStreamEndCapture", stream.stream)
            self._cuda.call("cudaGraphDestroy", recorded)
        except EngineError as error:
            _log.debug("%s: the capture was given up: %s", self._engine, error)

    def _enqueue(self, stream: CudaStream) -> None:
        with errors_said() as errors:
            done = self._context.execute_async_v3(stream.handle)
        if not done:
            raise EngineError(
                f"TensorRT failed in {self._engine}: {'; '.join(errors) or 'no reason was given'}",
                "run with -v for its own words; build the engine again",
            )
