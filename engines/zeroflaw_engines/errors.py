"""One error tree for the whole project: every error names its cause and its remedy."""

from __future__ import annotations

from typing import ClassVar


class ZeroflawError(Exception):
    """Base of every error that zeroflaw raises on purpose.

    Args:
        cause: What is wrong, naming the thing (file, product, tensor) and the reason.
        remedy: What the reader can do about it.

    Attributes:
        code: Stable identifier of the kind of error, for logs and line-side software.
    """

    code: ClassVar[str] = "error"

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause} -- {remedy}")
        self.cause = cause
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[ZeroflawError], tuple[str, str]]:
        """Pickle both texts: an error must cross from a worker process to its parent."""
        return type(self), (self.cause, self.remedy)


class BundleError(ZeroflawError):
    """A bundle cannot be read or written."""

    code = "bundle"


class BundleDamagedError(BundleError):
    """A file of the bundle is missing, truncated or altered."""

    code = "bundle_damaged"


class BundleSchemaError(BundleError):
    """The manifest is not one that this version understands."""

    code = "bundle_schema"


class BundleChangedError(BundleError):
    """Another process replaced the bundle while it was in use."""

    code = "bundle_changed"


class EngineError(ZeroflawError):
    """An engine cannot be loaded or run."""

    code = "engine"


class BackendUnavailableError(EngineError):
    """The backend asked for does not exist on this machine."""

    code = "backend_unavailable"


class BuildError(EngineError):
    """An engine cannot be built as asked; nothing was published."""

    code = "engine_build"


class EngineMissingError(EngineError):
    """No engine has been built for this backend and GPU."""

    code = "engine_missing"


class EngineStaleError(EngineError):
    """A built engine is not of this bundle, this backend's version or this GPU architecture."""

    code = "engine_stale"


class EngineDamagedError(EngineError):
    """A built engine or its sidecar is truncated, altered, or they do not belong together."""

    code = "engine_damaged"


class EngineContractError(EngineError):
    """An engine's tensors, or those given to it, are not those of the contract."""

    code = "engine_contract"


class ArgumentError(ZeroflawError):
    """An argument of a call is of the wrong kind, or out of its range."""

    code = "argument"


class ProcessError(ZeroflawError):
    """Something was taken to a process, or a copy, in which it cannot work."""

    code = "process"


class FrameError(ZeroflawError):
    """An array is not a frame that can be inspected."""

    code = "frame"


class StreamError(ZeroflawError):
    """A stream of frames cannot take or inspect a frame."""

    code = "stream"


class StreamFullError(StreamError):
    """A stream holds as many frames as it may: this one was not taken."""

    code = "stream_full"


class ImageFileError(ZeroflawError):
    """A file is not an image that can be read completely."""

    code = "image_file"


class ResultsError(ZeroflawError):
    """The results of a picture cannot be written; none of them is there."""

    code = "results"


class RunFolderError(ZeroflawError):
    """A folder of results cannot be taken, or cannot be written any more."""

    code = "run_folder"


class OutputError(ZeroflawError):
    """Standard output cannot be written."""

    code = "output"


class ProductError(ZeroflawError):
    """A product is unknown to the bundle, or its name or embeddings are not acceptable."""

    code = "product"


class SettingsError(ProductError):
    """The settings of a product contradict themselves, its frames or the bundle."""


class RecordError(ZeroflawError):
    """A document is not a record of an inspection that this version reads."""

    code = "record"


class ReferenceBankError(ZeroflawError):
    """A reference bank does not belong to the bundle, or none can be made of the photos given."""

    code = "reference_bank"


class CalibrationError(ZeroflawError):
    """No decision threshold can be set from the images given."""

    code = "calibration"


class ParametersError(ZeroflawError):
    """A method parameter is unknown or out of its range."""

    code = "parameters"


class WeightsError(ZeroflawError):
    """Weights cannot be found, read, or do not fit the architecture."""

    code = "weights"


class DownloadError(WeightsError):
    """Weights cannot be downloaded, or what arrived is not what was expected."""

    code = "download"


class ExportError(ZeroflawError):
    """An export cannot be completed; nothing was published."""

    code = "export"


class ParityError(ExportError):
    """An exported engine does not reproduce the PyTorch reference; nothing was published."""

    code = "parity"


class DatasetError(ZeroflawError):
    """A data set, or an image or mask of it, is not what its layout says."""

    code = "dataset"


class ScoreError(ZeroflawError):
    """Scores cannot be measured against the truth: not finite, or of another shape."""

    code = "score"


class TrainingError(ZeroflawError):
    """A training cannot begin or go on; what is cached is kept."""

    code = "training"


class MissingExtraError(ZeroflawError):
    """A command needs an optional part of zeroflaw that is not installed."""

    code = "missing_extra"


class ComparisonError(ZeroflawError):
    """Two results cannot be compared: not finite, of other shapes, or nothing to measure by."""

    code = "comparison"


class EvaluationError(ZeroflawError):
    """An evaluation cannot be made, or not with this cache."""

    code = "evaluation"


class BenchmarkError(ZeroflawError):
    """A benchmark cannot be made, or its report cannot be read."""

    code = "benchmark"
