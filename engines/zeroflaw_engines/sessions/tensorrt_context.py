"""One execution context of a built engine, and the CUDA graph recorded of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.sessions.cuda import Cuda


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

    def set_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Set the shapes of all inputs, if they are not set already.

        Raises:
            EngineError: TensorRT refuses one.
        """
        if self._shapes == shapes:
            return
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise EngineError(
                    f"the engine of {self._engine} was not built for {name} of shape {list(shape)}",
                    "build the engine again for such shapes",
                )
        self._shapes = dict(shapes)

    def capture(self, stream: object) -> bool:
        """Record the context's work; it must have run with these shapes before.

        Returns:
            Whether it could be recorded.

        Raises:
            EngineError: CUDA failed.
        """
        if self._graph is not None:
            return True
        can = getattr(self._context, "is_stream_capturable", None)  # TensorRT-RTX alone has it
        if can is not None and not can(int(stream)):  # type: ignore[call-overload]
            return False
        modes = self._cuda.runtime.cudaStreamCaptureMode
        self._cuda.call("cudaStreamBeginCapture", stream, modes.cudaStreamCaptureModeThreadLocal)
        try:
            self._enqueue(stream)
        finally:
            # Ends the capture also after a failure, or the stream could not be used any more.
            recorded = self._cuda.call("cudaStreamEndCapture", stream)
        self._graph = self._cuda.call("cudaGraphInstantiate", recorded, 0)
        self._cuda.call("cudaGraphDestroy", recorded)
        return True

    def run(self, stream: object) -> None:
        """Put the work into a stream.

        Raises:
            EngineError: TensorRT or CUDA failed.
        """
        if self._graph is not None:
            self._cuda.call("cudaGraphLaunch", self._graph, stream)
        else:
            self._enqueue(stream)

    def close(self) -> None:
        """Release the graph and the context."""
        if self._graph is not None:
            self._cuda.call("cudaGraphExecDestroy", self._graph)
        self._graph = None
        self._context = None

    def _enqueue(self, stream: object) -> None:
        if not self._context.execute_async_v3(int(stream)):  # type: ignore[call-overload]
            raise EngineError(
                f"TensorRT failed in {self._engine}",
                "run with -v for its own words; build the engine again",
            )
