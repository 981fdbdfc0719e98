"""A bundle whose localizer takes no texts, in C and C++."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.embedded_library import (
    LANGUAGES,
    ROOT,
    EmbeddedLibrary,
    as_the_examples_print,
    write_pnm,
)
from zeroflaw.inspector import Inspector
from zeroflaw.pictures.images import read_image
from zeroflaw_engines.bundle.bundle import Bundle


@pytest.mark.long
def test_it_has_the_same_results_in_c_cpp_and_python(
    library: EmbeddedLibrary, textless_bundle: Bundle, tmp_path: Path
) -> None:
    frame = write_pnm(ROOT / "examples" / "frames" / "casting_dent.jpg", tmp_path)
    with Inspector.load(textless_bundle.path) as inspector:
        expected = as_the_examples_print(frame, inspector.inspect(read_image(frame)))
    for way in LANGUAGES:
        program = library.examples[way, "find_package"]
        ended = library.run(program, textless_bundle.path, "object", frame)
        assert ended.stdout == expected, ended.stderr
