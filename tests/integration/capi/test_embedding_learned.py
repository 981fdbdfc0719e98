"""Learned products in C and C++: the results of Python, and `zeroflaw_reload`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from support.embedded_library import (
    LANGUAGES,
    ROOT,
    EmbeddedLibrary,
    as_the_examples_print,
    of_the_frame_alone,
    write_pnm,
)
from support.products.learned_product import bank_of, store
from zeroflaw.inspector import Inspector
from zeroflaw.pictures.images import read_image
from zeroflaw_engines.bundle.bundle import open_bundle
from zeroflaw_engines.bundle.writer import copy_bundle

PRODUCT = "object"
PHOTOS = ("casting_dent.jpg", "casting_good.jpg")


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The photos as the examples read them."""
    folder = tmp_path_factory.mktemp("pnm")
    return [write_pnm(ROOT / "examples" / "frames" / photo, folder) for photo in PHOTOS]


def test_a_learned_product_has_the_same_results_in_c_cpp_and_python(
    library: EmbeddedLibrary, frames: list[Path], tmp_path: Path
) -> None:
    bundle = copy_bundle(open_bundle("mini"), tmp_path / "bundle").path
    with Inspector.load(bundle) as inspector:
        digest = store(bundle, PRODUCT, bank_of(inspector, [read_image(frames[1])], 60))
        without = [inspector.inspect(read_image(path), product=PRODUCT) for path in frames]
        inspector.reload()
        found = [inspector.inspect(read_image(path), product=PRODUCT) for path in frames]
    assert {inspection.reference for inspection in found} == {digest}
    assert all(a.image_score != b.image_score for a, b in zip(found, without, strict=True))
    for way in LANGUAGES:
        ended = library.run(library.examples[way, "find_package"], bundle, PRODUCT, *frames)
        expected = [as_the_examples_print(*pair) for pair in zip(frames, found, strict=True)]
        assert ended.stdout == "".join(expected), ended.stderr
    (tmp_path / "station.toml").write_text('bundle = "bundle"\n')
    program = library.examples["cpp", "find_package"]
    ended = library.run(
        program, "--out", tmp_path, tmp_path / "station.toml", PRODUCT, *frames, timeout=240
    )
    assert ended.returncode in (0, 4), ended.stderr
    for path, expected_one in zip(frames, found, strict=True):
        mask = read_image(tmp_path / f"{path.name}.mask.pgm")
        assert np.array_equal(mask == 255, expected_one.mask)
        record = (tmp_path / f"{path.name}.json").read_bytes()
        assert of_the_frame_alone(record) == of_the_frame_alone(expected_one.to_json())
        assert json.loads(record)["reference"] == digest


def test_cpp_takes_over_a_product_that_is_learned_meanwhile(
    library: EmbeddedLibrary, frames: list[Path], tmp_path: Path
) -> None:
    bundle = copy_bundle(open_bundle("mini"), tmp_path / "bundle").path
    learned = copy_bundle(open_bundle("mini"), tmp_path / "learned").path
    with Inspector.load(learned) as inspector:
        digest = store(learned, PRODUCT, bank_of(inspector, [read_image(frames[1])], 60))
    source, program = tmp_path / "reload.cpp", tmp_path / "reload"
    source.write_text(RELOADING)
    library.build_with_pkg_config(
        "-std=c++17", "-Wall", "-Wextra", "-Werror", source, "-o", program, compiler="c++"
    )
    ended = library.run(program, bundle, learned, PRODUCT)
    assert ended.returncode == 0, ended.stderr
    before, after, cloned, refused = ended.stdout.splitlines()
    assert before == "none"
    assert after == cloned == str(digest)
    assert refused == "6 as it was"


# A clone takes over what the other was told to; a bundle that is gone changes nothing.
RELOADING = """
#include <filesystem>
#include <iostream>
#include <vector>
#include <zeroflaw/zeroflaw.hpp>

int main(int, char** words) {
  namespace fs = std::filesystem;
  zeroflaw::Config config;
  config.bundle = words[1];
  zeroflaw::Inspector inspector(config);
  zeroflaw::Inspector clone = inspector.clone();
  std::vector<unsigned char> pixels(64 * 64);
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = (i * 37 + i / 64 * 11) % 256;
  zeroflaw::Frame frame;
  frame.pixels = pixels.data();
  frame.width = frame.height = frame.stride = 64;
  frame.pixel_format = zeroflaw::PixelFormat::mono8;
  frame.product = words[3];
  const auto show = [](const zeroflaw::Inspection& seen) {
    std::cout << (seen.reference().empty() ? "none" : seen.reference()) << std::endl;
  };
  show(inspector.inspect(frame));
  fs::copy(words[2], words[1], fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  inspector.reload();
  const zeroflaw::Inspection learned = inspector.inspect(frame);
  show(learned);
  show(clone.inspect(frame));
  if (inspector.describe().find(learned.reference()) == std::string::npos) return 2;
  fs::remove_all(words[1]);
  try {
    inspector.reload();
  } catch (const zeroflaw::Error& error) {
    const bool same = inspector.inspect(frame).score() == learned.score();
    std::cout << error.status() << (same ? " as it was" : " changed") << std::endl;
  }
}
"""
