"""What is drawn for training and what for the test: they share no family, texture or defect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from zeroflaw_benchmarks.frames import (
    defects,
    patterned_surfaces,
    rough_surfaces,
    shaded_surfaces,
    surfaces,
    training_defects,
)
from zeroflaw_benchmarks.frames.defects import Defect
from zeroflaw_benchmarks.frames.surfaces import Surface, real_photo, real_texture

Split = Literal["train", "test"]
# Smallest and largest share of the frame that a type covers; long thin things cover little.
Areas = tuple[float, float]

# What is measured on the test set is zero-shot, since nothing of it stands in the first row.
SURFACES: Final[Mapping[Split, dict[str, Surface]]] = {
    "train": {
        "brushed_metal": surfaces.brushed_metal,
        "turned_grooves": surfaces.turned_grooves,
        "fabric": surfaces.fabric,
        "wood": surfaces.wood,
        "leather": surfaces.leather,
        "painted": surfaces.painted,
        "perforated_plate": surfaces.perforated_plate,
        "printed_carton": surfaces.printed_carton,
        "moulded_part": surfaces.moulded_part,
        "brick": real_texture("brick"),
        "grass": real_texture("grass"),
        "chipboard": rough_surfaces.chipboard,
        "felt": rough_surfaces.felt,
        "foam": rough_surfaces.foam,
        "terrazzo": rough_surfaces.terrazzo,
        "sandpaper": rough_surfaces.sandpaper,
        "wrinkled_film": rough_surfaces.wrinkled_film,
        "printed_foil": rough_surfaces.printed_foil,
        "plaster": rough_surfaces.plaster,
        "ceramic_tiles": patterned_surfaces.ceramic_tiles,
        "knurled_grip": patterned_surfaces.knurled_grip,
        "carbon_twill": patterned_surfaces.carbon_twill,
        "corrugated_sheet": patterned_surfaces.corrugated_sheet,
        "wire_mesh": patterned_surfaces.wire_mesh,
        "keypad": patterned_surfaces.keypad,
        "milled_channels": patterned_surfaces.milled_channels,
        "glossy_shell": patterned_surfaces.glossy_shell,
        "shaft": shaded_surfaces.shaft,
        "spring_coil": shaded_surfaces.spring_coil,
        "steel_balls": shaded_surfaces.steel_balls,
        "rounded_block": shaded_surfaces.rounded_block,
        "faced_disc": shaded_surfaces.faced_disc,
        "unsharp_scene": shaded_surfaces.unsharp_scene,
        "portrait": real_photo("astronaut"),
        "photographer": real_photo("camera"),
        "cat": real_photo("chelsea"),
        "rocket": real_photo("rocket"),
        "clock": real_photo("clock"),
        "retina": real_photo("retina"),
        "handwriting": real_photo("text"),
    },
    "test": {
        "casting": surfaces.casting,
        "printed_board": surfaces.printed_board,
        "glass": surfaces.glass,
        "gravel": real_texture("gravel"),
    },
}
DEFECTS: Final[Mapping[Split, dict[str, tuple[Defect, Areas]]]] = {
    "train": {
        "scratch": (defects.scratch, (0.0006, 0.01)),
        "stain": (defects.stain, (0.0008, 0.2)),
        "missing_part": (defects.missing_part, (0.0005, 0.15)),
        "contamination": (defects.contamination, (0.0005, 0.05)),
        "wrong_texture": (defects.wrong_texture, (0.004, 0.2)),
        "smear": (defects.smear, (0.003, 0.2)),
        "burn": (defects.burn, (0.0008, 0.2)),
        "spatter": (training_defects.spatter, (0.0008, 0.03)),
        "blister": (training_defects.blister, (0.001, 0.15)),
        "spalling": (training_defects.spalling, (0.0006, 0.08)),
        "abrasion": (training_defects.abrasion, (0.002, 0.2)),
        "foreign_piece": (training_defects.foreign_piece, (0.0006, 0.15)),
        "fading": (training_defects.fading, (0.001, 0.2)),
        "corrosion": (training_defects.corrosion, (0.001, 0.1)),
        "crease": (training_defects.crease, (0.001, 0.015)),
    },
    "test": {
        "dent": (defects.dent, (0.002, 0.2)),
        "crack": (defects.crack, (0.001, 0.03)),
        "print_error": (defects.print_error, (0.001, 0.2)),
        "pinhole": (defects.pinhole, (0.0005, 0.02)),
    },
}
