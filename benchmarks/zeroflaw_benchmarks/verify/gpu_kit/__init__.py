"""A kit that carries zeroflaw to a GPU machine without internet and verifies it there.

    python -m zeroflaw_benchmarks.verify.gpu_kit pack KIT    # here: KIT/piece_1, piece_2, ...
    python3 KIT/piece_1/gpu_kit.pyz --out reports            # there, with the pieces that have come

`run` and what it imports need nothing but Python's own library: they travel in `gpu_kit.pyz`.
"""
