"""The Inspector: a loaded bundle that turns frames into inspections."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn, Self, get_args

from numpy.typing import NDArray

from zeroflaw.frame_pipeline import FramePipeline
from zeroflaw.inspection import Inspection
from zeroflaw.loaded_products import load_products, reopened
from zeroflaw.pipeline.encoding.frame import EncodedFrame
from zeroflaw.pipeline.intake import INHERITED, CameraSettings, Inherited, take_array, taking
from zeroflaw.records.stamp import new_stamp
from zeroflaw.sessions import Sessions, load_bundle
from zeroflaw_engines import arguments
from zeroflaw_engines.backends import DEFAULT_BACKEND, BackendChoice
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.shipped import SHIPPED_NAME
from zeroflaw_engines.errors import EngineError
from zeroflaw_engines.image_files.frame import MAX_FRAME_PIXELS, ChannelOrder
from zeroflaw_engines.machine import MAX_THREADS
from zeroflaw_engines.parameters import MethodParameters
from zeroflaw_engines.process.fork_gate import fork_gate
from zeroflaw_engines.process.lifetime import Lifetime, refuse_copy

EncoderSchedule = Literal["side_by_side", "clip_first"]


def _method_parameters(given: MethodParameters) -> MethodParameters:
    remedy = "call MethodParameters.from_mapping"
    return arguments.instance("parameters", given, MethodParameters, remedy)


class Inspector:
    """Inspects frames with the engines of one bundle.

    One Inspector may be shared by any number of threads: an inspection keeps all its state to
    itself, and sessions take concurrent calls. Calls from several threads share the same cores,
    so they add throughput only where one call leaves cores idle.

    Use it as a context manager, or `close` it. It works in the process that made it: a fork of
    that process, a copy and a pickle are refused with a `ProcessError`.

    Attributes:
        backend: What runs the engines: name, version, device and precision.
        choice: The backend that was chosen and why; None if it was made of loaded sessions.
    """

    def __init__(
        self,
        bundle: Bundle,
        sessions: Sessions,
        *,
        parameters: MethodParameters | None = None,
        encoder_schedule: EncoderSchedule = "side_by_side",
        max_frame_pixels: int = MAX_FRAME_PIXELS,
        channel_order: ChannelOrder = "rgb",
        white_level: float | None = None,
        choice: BackendChoice | None = None,
        threads: int = 0,
        decision_threshold: float | None = None,
    ) -> None:
        """Make an Inspector of sessions that are loaded already; most callers want `load`."""
        arguments.choice("encoder_schedule", encoder_schedule, get_args(EncoderSchedule))
        arguments.whole_number("max_frame_pixels", max_frame_pixels, minimum=1)
        arguments.whole_number("threads", threads, minimum=0, maximum=MAX_THREADS)
        self._camera = CameraSettings(channel_order, white_level)
        self._camera.require_valid()
        recorded = bundle.manifest.method_parameters
        parameters = recorded if parameters is None else _method_parameters(parameters)
        if decision_threshold is not None:
            parameters = parameters.replace(decision_threshold=decision_threshold)
        sessions.require(parameters.refiner)
        self._parameters = parameters
        self.backend = sessions.backend
        self.choice = choice
        self._max_frame_pixels = max_frame_pixels
        self._sizes = bundle.manifest.sizes
        self._load_products = partial(
            load_products,
            parameters=parameters,
            explicit=decision_threshold is not None
            or parameters.decision_threshold != recorded.decision_threshold,
        )
        self._schedule, self._threads = encoder_schedule, threads
        # Read once a frame, and replaced as a whole.
        self._products = self._load_products(bundle, sessions)
        self._begin(sessions)

    def _begin(self, sessions: Sessions) -> None:
        """Take sessions over, and make what no clone shares."""
        self._sessions = sessions
        self._reloading = threading.Lock()
        self._pipeline = FramePipeline(
            sessions,
            self._sizes,
            self._parameters,
            side_by_side=self._schedule == "side_by_side",
            threads=self._threads,
        )
        closed = partial(EngineError, "this Inspector is closed", "load another one")
        self._lifetime = Lifetime(self, "this Inspector", closed)

    @classmethod
    def load(
        cls,
        bundle: str | Path = SHIPPED_NAME,
        backend: str = DEFAULT_BACKEND,
        *,
        precision: str | None = None,
        parameters: MethodParameters | None = None,
        threads: int = 0,
        model_cache: str | Path | None = None,
        device: int = 0,
        encoder_schedule: EncoderSchedule = "side_by_side",
        max_frame_pixels: int = MAX_FRAME_PIXELS,
        channel_order: ChannelOrder = "rgb",
        white_level: float | None = None,
        decision_threshold: float | None = None,
    ) -> Inspector:
        """Verify a bundle and load its engines.

        Args:
            bundle: The bundle's directory, or the name of a demonstration model that ships with
                zeroflaw, as `mini`.
            backend: What runs the engines: a name that `zeroflaw doctor` lists, or `auto` for the
                fastest of those that are available.
            precision: What the engines compute in: `fp32`, `bf16`, `fp16`; default: the backend's.
            parameters: Method parameters; default: those that the bundle records.
            threads: CPU threads of each engine, and of resizing, at most 1024; 0 takes all cores.
            model_cache: Where backends that compile at load keep what they compiled.
            device: Number of the GPU, as CUDA counts; CPU backends take 0 alone.
            encoder_schedule: `side_by_side` runs both encoders at once: the shortest time to a
                mask. `clip_first` leaves the SAM encoder out where CLIP finds no extreme
                region: the least work on good parts.
            max_frame_pixels: Larger frames are refused, height x width.
            channel_order: Order of arrays' colour channels, `rgb` or `bgr`, unless a call says it.
            white_level: Value of arrays that counts as white, unless a call says another; default:
                the dtype's largest, 1.0 for floats. A 12-bit camera wants 4095.
            decision_threshold: Image score at and above which frames are rejected, in place of
                every product's own threshold; results say so. So does one in `parameters` that
                is not the one that the bundle records.

        Raises:
            ArgumentError: An argument is of the wrong kind, or out of its range.
            BundleError: The bundle is missing, damaged, or of a newer schema.
            BackendUnavailableError: The backend is unknown or not installed, or lacks its driver,
                the GPU of that number or the precision.
            EngineError: An engine cannot be loaded, or the bundle has none of the refiner's.
        """
        arguments.choice("encoder_schedule", encoder_schedule, get_args(EncoderSchedule))
        refiner = None if parameters is None else _method_parameters(parameters).refiner
        cache = None if model_cache is None else Path(arguments.path("model_cache", model_cache))
        opened, choice, sessions = load_bundle(
            bundle, backend, refiner=refiner, precision=precision, threads=threads,
            model_cache=cache, device=device,
        )  # fmt: skip
        try:
            return cls(
                opened,
                sessions,
                parameters=parameters,
                encoder_schedule=encoder_schedule,
                max_frame_pixels=max_frame_pixels,
                channel_order=channel_order,
                white_level=white_level,
                choice=choice,
                threads=threads,
                decision_threshold=decision_threshold,
            )
        except BaseException:
            sessions.close()
            raise

    @property
    def parameters(self) -> MethodParameters:
        """The method's parameters it applies; others take another Inspector."""
        return self._parameters

    @property
    def bundle(self) -> Bundle:
        """The bundle that it was loaded from, as it was then or at the latest `reload`."""
        return self._products.bundle

    @property
    def sessions(self) -> Sessions:
        """The engines; they are closed with the Inspector."""
        return self._sessions

    @property
    def products(self) -> tuple[str, ...]:
        """Names of the products that can be inspected."""
        return self._products.names

    def product_name(self, product: str | None) -> str:
        """Return the product that is meant: the one named, or the only one there is.

        Raises:
            ProductError: It is unknown, or there are several to choose from.
        """
        return self._products.named(product).name

    def decision_threshold(self, product: str) -> tuple[float, tuple[str, ...]]:
        """Return the threshold that frames of a product are judged by, and what to know about it.

        Args:
            product: A name as `product_name` gives it.

        Returns:
            The decision score at and above which they are rejected, in [0, 1], and warnings.
        """
        found = self._products.by_name[product]
        return found.threshold, found.threshold_warnings

    def reload(self) -> None:
        """Take over the products that the bundle has now: learned, calibrated, added, forgotten.

        Frames that begin after it are judged by them, all of them at once; those under way end
        with what they began with, and nothing waits. Reference banks that have not changed stay
        where they are. Method parameters stay as well. If it raises, everything is as it was.

        Raises:
            BundleChangedError: The bundle was replaced by one of other models: load an Inspector
                of that.
            BundleError: The bundle is gone or damaged.
            EngineMissingError: A product has learned a reference bank, and no reference_matcher
                was loaded, since it had not been built.
            ReferenceBankError: A bank does not belong to the bundle.
        """
        with self._lifetime.call(), fork_gate().call(), self._reloading:
            now = reopened(self.bundle)
            self._products = self._load_products(now, self._sessions, loaded=self._products)

    @property
    def max_batch(self) -> int:
        """Most frames that `inspect_batch` takes; 1 unless the bundle was exported for more."""
        return self._pipeline.max_batch

    def clone(self) -> Self:
        """Make another Inspector on the same loaded weights, for the throughput of several streams.

        It has the same products and settings, and on a GPU an execution context, a stream and
        working memory of its own. Each is warmed up, reloaded and closed by itself, in any order.

        Raises:
            EngineError: There is not enough memory, or this Inspector is closed.
        """
        with self._lifetime.call(), fork_gate().call():
            clone = object.__new__(type(self))
            clone.__dict__.update(self.__dict__)
            clone._begin(self._sessions.clone())
        return clone

    def warm_up(self, runs: int = 1, *, frame_size: tuple[int, int] | None = None) -> None:
        """Prepare every engine, so that the first inspection is as fast as the rest.

        Args:
            runs: How often every engine is run on zeros, at least once.
            frame_size: Height and width of the frames to come, px: the first of a size takes
                longer on a GPU, where its resizing is checked.
        """
        arguments.whole_number("runs", runs, minimum=1)
        if frame_size is not None:
            arguments.frame_size("frame_size", frame_size, max_pixels=self._max_frame_pixels)
        with self._lifetime.call(), fork_gate().call():
            self._pipeline.warm_up(runs, frame_size)

    def inspect(
        self,
        image: NDArray[Any] | str | Path,
        *,
        product: str | None = None,
        channel_order: ChannelOrder | Inherited = INHERITED,
        white_level: float | Inherited | None = INHERITED,
        trace: bool = False,
        frame_id: str | None = None,
        part_id: str | None = None,
        camera_id: str | None = None,
    ) -> Inspection:
        """Inspect one frame: an array, or an image file.

        A file is read as `read_image_file` reads it, with its pixels as they are stored; what is
        to be known of the file is among the warnings of the result.

        Args:
            image: The frame, or the path of an image file; `rgb_frame` says which arrays are
                accepted, and `docs/image_files.md` which files.
            product: Name of the product; may be left out if the bundle has only one.
            channel_order: Order of an array's colour channels; default: that given at `load`. A
                file says its own.
            white_level: Value that counts as white, None for the largest of the dtype; default:
                that given at `load`, and for a file what the file says.
            trace: Whether the result says how its mask came about.
            frame_id: The caller's name of the frame; comes back with the result.
            part_id: The same of the part.
            camera_id: The same of the camera.

        Raises:
            FrameError: The array is not a frame.
            ImageFileError: There is no such file, or it cannot be read completely.
            ProductError: The bundle does not know the product.
            EngineError: An engine failed, or returned values that are not finite or out of
                their range; there is no result, and so no "good" one.
        """
        arguments.flag("trace", trace)
        given = CameraSettings(channel_order, white_level)
        take = taking(image, self._camera, self._max_frame_pixels, given)
        with self._lifetime.call(), fork_gate().call():
            stamp = new_stamp(part_id=part_id, frame_id=frame_id, camera_id=camera_id)
            encoded = self._pipeline.encode(take, self._products.named(product), stamp)
            return self.decode_frame(encoded, trace=trace)

    def inspect_batch(
        self,
        images: Sequence[NDArray[Any] | str | Path],
        *,
        product: str | None = None,
        trace: bool = False,
    ) -> list[Inspection]:
        """Inspect frames of one product, each encoder in one call: for re-inspecting a folder.

        Results are those of `inspect`, in the order of the frames, but for the order of sums inside
        the encoders. In `timings_ms` a call that frames share counts whole for each of them.

        Args:
            images: As `inspect` takes them, 1 to `max_batch`, with the camera settings of `load`.

        Raises:
            ArgumentError: They are more than one call takes, or none.
            ZeroflawError: As `inspect` raises it, for any of them; there is no result then.
        """
        arguments.flag("trace", trace)
        takes = [taking(one, self._camera, self._max_frame_pixels) for one in images]
        with self._lifetime.call(), fork_gate().call():
            encoded = self._pipeline.encode_batch(takes, self._products.named(product))
            return [self.decode_frame(one, trace=trace) for one in encoded]

    def encode_frame(
        self,
        image: NDArray[Any],
        *,
        product: str | None = None,
        channel_order: ChannelOrder | Inherited = INHERITED,
        white_level: float | Inherited | None = INHERITED,
        frame_id: str | None = None,
        part_id: str | None = None,
        camera_id: str | None = None,
    ) -> EncodedFrame:
        """Do the first half of `inspect`: check and resize the frame, run both encoders.

        `InspectionStream` runs it for one frame while `decode_frame` runs for the one before.
        Arguments and errors are those of `inspect`; it takes arrays alone.
        """
        stamp = new_stamp(part_id=part_id, frame_id=frame_id, camera_id=camera_id)
        given = CameraSettings(channel_order, white_level)
        take = partial(take_array, image, given, self._camera, self._max_frame_pixels)
        with self._lifetime.call(), fork_gate().call():
            return self._pipeline.encode(take, self._products.named(product), stamp)

    def decode_frame(self, encoded: EncodedFrame, *, trace: bool = False) -> Inspection:
        """Do the second half of `inspect`: the refiner, scores, regions, decision.

        Args:
            encoded: From `encode_frame` of this Inspector.
            trace: Whether the result says how its mask came about.

        Raises:
            EngineError: The decoder failed, or needs what was left out when the frame was encoded.
        """
        arguments.flag("trace", trace)
        arguments.instance("encoded", encoded, EncodedFrame, "give what encode_frame returned")
        with self._lifetime.call(), fork_gate().call():
            return self._pipeline.decode(encoded, trace=trace)

    def close(self) -> None:
        """Release the engines once the calls of other threads have ended; new ones are refused.

        Within a call of the same thread, such as in a signal handler, it does not wait: the call
        that ends last releases them. In a fork it does nothing.
        """
        self._lifetime.close(self._release)

    def __reduce__(self) -> NoReturn:
        refuse_copy("an Inspector", "send the bundle's path, and load an Inspector there")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _release(self) -> None:
        with closing(self._sessions):
            self._pipeline.close()
