"""What a call of Python's own `inspect` costs beside the inspection, as latency.cpp says it of C.

python runtime/c/tests/latency.py CALLS

Writes the frames of examples/ into build/ as PPM for the C driver, and prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from zeroflaw.inspector import Inspector
from zeroflaw.pictures.images import read_image


def main(calls: int) -> None:
    """Write the frames, then measure and print."""
    images = [read_image(path) for path in sorted(Path("examples/frames").glob("*.jpg"))]
    for number, image in enumerate(images):
        Image.fromarray(image).convert("RGB").save(f"build/frame_{number}.ppm")
    beside = []
    with Inspector.load("mini") as inspector:
        inspector.warm_up()
        for call in range(-5, calls):
            begun = time.perf_counter()
            inspection = inspector.inspect(images[call % len(images)], product="object")
            if call >= 0:  # the first calls fill caches
                beside.append(1e3 * (time.perf_counter() - begun) - inspection.timings_ms["total"])
    names = ("beside_p50", "beside_p90", "beside_p99")
    figures = dict(zip(names, np.quantile(beside, [0.5, 0.9, 0.99]).round(4), strict=True))
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
