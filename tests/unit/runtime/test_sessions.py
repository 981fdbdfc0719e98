"""Which engines an inspection loads: the matcher of reference banks only where one needs it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from support.small_bundle import write_small_bundle
from zeroflaw import sessions as module
from zeroflaw.sessions import Sessions, load_bundle, load_sessions
from zeroflaw_engines.backends import BackendChoice
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.manifest import Reference
from zeroflaw_engines.contract import (
    FRAME_RESIZER,
    REFERENCE_MATCHER,
    SAM_ENCODER,
    EngineContract,
)
from zeroflaw_engines.errors import EngineMissingError

CHOICE = BackendChoice("onnxruntime", "fp32", "named")
REFERENCE = Reference(
    bank="reference-0.safetensors",
    rows=1,
    photos=(),
    tower="0" * 64,
    backend="b",
    precision="fp32",
    created="2026-01-01T00:00:00+00:00",
)


class Loaded:
    """A session by name, that says when it is closed."""

    backend = "scripted"

    def __init__(self, name: str) -> None:
        self.name, self.closed = name, False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_small_bundle(tmp_path / "b")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Loaded]:
    sessions: list[Loaded] = []

    def load(_: Bundle, name: str, **__: object) -> Loaded:
        if name == REFERENCE_MATCHER and any(one.name == "unbuilt" for one in sessions):
            raise EngineMissingError("the reference_matcher was not built", "zeroflaw build")
        sessions.append(Loaded(name))
        return sessions[-1]

    monkeypatch.setattr(module, "load_session", load)
    return sessions


def with_bank(bundle: Bundle) -> Bundle:
    name = min(bundle.manifest.products)
    learned = msgspec.structs.replace(bundle.manifest.products[name], reference=REFERENCE)
    products = {**bundle.manifest.products, name: learned}
    return Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, products=products))


def test_the_matcher_comes_with_the_others_and_is_closed_with_them(
    bundle: Bundle, loaded: list[Loaded]
) -> None:
    sessions = load_sessions(bundle, CHOICE)
    assert sessions.reference_matcher is loaded[3]
    assert [session.name for session in sessions] == [
        "clip_encoder", "sam_encoder", "sam_decoder", "reference_matcher",
    ]  # fmt: skip
    sessions.close()
    assert all(one.closed for one in loaded)


def test_all_are_closed_also_if_one_fails(bundle: Bundle, loaded: list[Loaded]) -> None:
    sessions = load_sessions(bundle, CHOICE)
    failing = loaded[1]

    def fail() -> None:
        raise RuntimeError("a lasting error of the device")

    failing.close = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a lasting error"):
        sessions.close()
    assert [one.closed for one in loaded] == [one is not failing for one in loaded]


def test_where_no_product_has_a_bank_it_need_not_have_been_built(
    bundle: Bundle, loaded: list[Loaded]
) -> None:
    loaded.append(Loaded("unbuilt"))
    sessions = load_sessions(bundle, CHOICE)
    assert sessions.reference_matcher is None
    assert len(list(sessions)) == 3
    assert not any(one.closed for one in loaded)


def test_where_a_product_has_one_the_error_says_what_is_missing(
    bundle: Bundle, loaded: list[Loaded]
) -> None:
    loaded.append(Loaded("unbuilt"))
    with pytest.raises(EngineMissingError, match="was not built"):
        load_sessions(with_bank(bundle), CHOICE)
    assert all(one.closed for one in loaded[1:])


def test_bundles_without_the_engine_load_the_three(bundle: Bundle, loaded: list[Loaded]) -> None:
    engines = {n: e for n, e in bundle.manifest.engines.items() if n != REFERENCE_MATCHER}
    manifest = msgspec.structs.replace(bundle.manifest, engines=engines, reference=None)
    assert load_sessions(Bundle(bundle.path, manifest), CHOICE).reference_matcher is None
    assert len(loaded) == 3


@pytest.mark.parametrize("learned", [False, True])
def test_auto_asks_for_the_matcher_where_a_product_has_a_bank(
    bundle: Bundle, loaded: list[Loaded], monkeypatch: pytest.MonkeyPatch, learned: bool
) -> None:
    asked: list[tuple[str, ...]] = []

    def choose(*_: object, engines: tuple[str, ...], **__: object) -> BackendChoice:
        asked.append(engines)
        return CHOICE

    monkeypatch.setattr(module, "choose_backend", choose)
    monkeypatch.setattr(module, "open_bundle", lambda _: with_bank(bundle) if learned else bundle)
    load_bundle(bundle.path, "auto")
    assert (REFERENCE_MATCHER in asked[0]) is learned
    assert len(loaded) == 4


@pytest.mark.parametrize("recorded", ["cascade", "none"])
@pytest.mark.parametrize("asked", ["cascade", "mmr", "none", None])
def test_only_the_engines_of_the_refiner_are_loaded(
    bundle: Bundle, loaded: list[Loaded], recorded: str, asked: str | None
) -> None:
    parameters = {**bundle.manifest.parameters, "refiner": recorded}
    manifest = msgspec.structs.replace(bundle.manifest, parameters=parameters)
    sessions = load_sessions(Bundle(bundle.path, manifest), CHOICE, refiner=asked)
    sam = [] if (asked or recorded) == "none" else ["sam_encoder", "sam_decoder"]
    assert [one.name for one in loaded] == ["clip_encoder", *sam, "reference_matcher"]
    assert list(sessions) == loaded
    assert (sessions.sam_encoder is None) is (sessions.sam_decoder is None) is (not sam)
    if sam:
        sessions.require("cascade")
    else:
        sessions.require("none")
        with pytest.raises(EngineMissingError, match=r"mmr runs sam_encoder and sam_decoder"):
            sessions.require("mmr")


def test_a_bundle_without_the_engines_of_a_refiner_names_the_one_it_has(
    bundle: Bundle, loaded: list[Loaded]
) -> None:
    engines = {n: e for n, e in bundle.manifest.engines.items() if not n.startswith("sam")}
    parameters = {**bundle.manifest.parameters, "refiner": "none"}
    manifest = msgspec.structs.replace(bundle.manifest, engines=engines, parameters=parameters)
    without = Bundle(bundle.path, manifest)
    load_sessions(without, CHOICE)
    loaded.clear()
    with pytest.raises(EngineMissingError, match="exported without") as refused:
        load_sessions(without, CHOICE, refiner="mmr")
    assert "set the refiner to none" in refused.value.remedy
    assert "--refiner mmr" in refused.value.remedy
    assert not loaded


@pytest.mark.parametrize("precision", [None, "fp16"])
def test_on_a_gpu_the_resizer_comes_last_in_the_one_form_it_has(
    bundle: Bundle, loaded: list[Loaded], monkeypatch: pytest.MonkeyPatch, precision: str | None
) -> None:
    asked: dict[str, object] = {}
    load = module.load_session

    def noted(of: Bundle, name: str, **options: object) -> object:
        asked[name] = options["precision"]
        return load(of, name, **options)

    monkeypatch.setattr(module, "load_session", noted)
    choice = BackendChoice("tensorrt-rtx", "fp16", "named")
    sessions = load_sessions(bundle, choice, precision=precision)
    assert sessions.frame_resizer is loaded[-1]
    assert asked[FRAME_RESIZER] is None
    assert asked[SAM_ENCODER] == precision
    assert sessions.resizer is sessions.resizer is not None
    sessions.close()
    assert all(one.closed for one in loaded)


def test_where_the_resizer_was_not_built_the_log_says_so(
    bundle: Bundle,
    loaded: list[Loaded],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    load = module.load_session

    def unbuilt(of: Bundle, name: str, **options: object) -> object:
        if name == FRAME_RESIZER:
            raise EngineMissingError("there is no frame_resizer", "zeroflaw build b --engine it")
        return load(of, name, **options)

    monkeypatch.setattr(module, "load_session", unbuilt)
    sessions = load_sessions(bundle, BackendChoice("tensorrt-rtx", "fp16", "named"))
    assert sessions.frame_resizer is sessions.resizer is None
    assert "zeroflaw build b --engine it" in caplog.text
    assert not any(one.closed for one in loaded)


def test_on_a_cpu_pillow_resizes(bundle: Bundle, loaded: list[Loaded]) -> None:
    assert load_sessions(bundle, CHOICE).resizer is None
    assert FRAME_RESIZER not in {one.name for one in loaded}


def test_the_resizer_is_no_model_of_a_result_and_is_not_captured() -> None:
    class Engine(Loaded):
        contract = EngineContract(SAM_ENCODER, (), ())

        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.backend, self.did = f"backend of {name}", []

        def prepare(self) -> None:
            self.did.append("prepare")

        def capture(self) -> None:
            self.did.append("capture")

    engines = {name: Engine("model") for name in ("clip_encoder", "sam_encoder", "sam_decoder")}
    resizer = Engine("resizer")
    sessions = Sessions(**engines, frame_resizer=resizer)
    sessions.warm_up(1)
    assert sessions.backend == "backend of model"
    assert resizer.did == ["prepare"]
    assert engines["sam_decoder"].did == ["prepare", "capture"]
