"""What `zeroflaw export --localizer` asks of the export."""

from __future__ import annotations

from pathlib import Path

import pytest

from zeroflaw_engines.errors import ZeroflawError
from zeroflaw_export import export as export_module
from zeroflaw_export.cli.export import export


class Asked(Exception):  # noqa: N818 - no error: it ends the command before anything is exported
    """The job that was asked for."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch):
    def stop(job, *_: object, **__: object) -> None:
        raise Asked(job)

    monkeypatch.setattr(export_module, "export_bundle", stop)

    def run(**options: object):
        with pytest.raises(Asked) as caught:
            export(Path("nowhere"), clip="tiny", sam="tiny", random_weights=1, **options)
        return caught.value.args[0]

    return run


def test_the_method_parameters_of_a_localizer_are_recorded_unless_others_are_given(asked) -> None:
    job = asked(localizer="winclip", localizer_set=["mid_window=4"])
    assert job.localizer_parameters == {"mid_window": 4}
    assert job.parameters.reference_distance == "half_cosine"
    assert job.parameters.reference_fusion == "mean"
    job = asked(localizer="winclip", settings=["reference_fusion=max"])
    assert job.parameters.reference_distance == "half_cosine"
    assert job.parameters.reference_fusion == "max"
    assert asked().parameters.reference_distance == "cosine"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sam_weights": "nowhere.pt"}, "no weights 'nowhere.pt'"),
        ({"localizer_weights": "nowhere.pt"}, "no weights 'nowhere.pt'"),
        ({"localizer_set": ["sigma=4"]}, "april_gan has no parameter sigma"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict, text: str
) -> None:
    monkeypatch.setenv("ZEROFLAW_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ZeroflawError, match=text):
        export(tmp_path / "b", **options)
    assert list(tmp_path.iterdir()) == []
