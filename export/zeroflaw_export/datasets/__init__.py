"""Data sets of good and defective images with masks, as their publishers lay them out.

Three layouts are read:

    mvtec    ROOT/CLASS/{train,test}/good/*, ROOT/CLASS/test/DEFECT/STEM.*,
             ROOT/CLASS/ground_truth/DEFECT/STEM_mask.*                           (MVTec-AD)
    visa     ROOT/CLASS/Data/Images/{Normal,Anomaly}/*, ROOT/CLASS/Data/Masks/Anomaly/*,
             listed in ROOT/split_csv/1cls.csv                                    (VisA)
    folder   ROOT/images/STEM.*, ROOT/masks/STEM.*; an all-zero mask says "good"

What the layout demands and is not there (no class, no image) is an error. A single file that
cannot be used is left out and reported: `Dataset.skipped` lists it with the reason. Pixels are
only decoded by `read_sample_image` and `read_sample_mask` (and the masks of a plain folder).
"""

from __future__ import annotations

from zeroflaw_export.datasets.datasets import (
    Dataset,
    DatasetClass,
    dataset_digest,
    read_dataset,
)
from zeroflaw_export.datasets.layouts import Layout, Skipped, Split, Unmasked, recognised_layout
from zeroflaw_export.datasets.samples import (
    Sample,
    mask_at_size,
    read_sample_image,
    read_sample_mask,
    sample_image_digest,
)

__all__ = [
    "Dataset",
    "DatasetClass",
    "Layout",
    "Sample",
    "Skipped",
    "Split",
    "Unmasked",
    "dataset_digest",
    "mask_at_size",
    "read_dataset",
    "read_sample_image",
    "read_sample_mask",
    "recognised_layout",
    "sample_image_digest",
]
