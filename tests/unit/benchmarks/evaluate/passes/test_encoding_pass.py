from __future__ import annotations

import numpy as np
from PIL import Image

from zeroflaw_benchmarks.evaluate.passes.encoding_pass import Truth, read_truth
from zeroflaw_export.datasets import Sample, Skipped


def test_damaged_images_are_left_out_before_anything_is_encoded(tmp_path, rng):
    image = tmp_path / "image.jpg"
    Image.fromarray(rng.integers(0, 256, (64, 48, 3), dtype=np.uint8)).save(image)
    values = np.zeros((64, 48), np.uint8)
    values[20:30, 10:40] = 255
    Image.fromarray(values).save(tmp_path / "mask.png")
    sample = Sample(image, tmp_path / "mask.png", anomalous=True, defect="any")
    truth = read_truth(16, sample)
    assert isinstance(truth, Truth)
    assert truth.mask().any()
    # Its header, which tells the size, is whole.
    data = image.read_bytes()
    image.write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    skipped = read_truth(16, sample)
    assert isinstance(skipped, Skipped)
    assert "is damaged" in skipped.reason


def test_another_white_level_is_another_image(tmp_path, rng):
    image = tmp_path / "deep.png"
    Image.fromarray(rng.integers(0, 4096, (16, 16), dtype=np.uint16)).save(image)
    digests = [
        read_truth(16, Sample(image, None, anomalous=False, defect="good", white_level=white))
        for white in (None, 4095, 4095)
    ]
    assert digests[0] != digests[1] == digests[2]
