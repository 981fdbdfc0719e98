"""Editing the settings of a product: read, held against a photo, drawn, stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from zeroflaw.pictures.reading import Reading, ReadPicture
from zeroflaw.pictures.settings_overlay import draw_settings
from zeroflaw.pipeline.view.alignment import Aligner, aligner_of, reference_template
from zeroflaw.pipeline.view.registration import reduced
from zeroflaw.pipeline.view.tiles import TileGrid, grid_for_defect, patches_of, tile_grid
from zeroflaw.pipeline.view.zones import zone_layout
from zeroflaw.records.threshold import uncalibrated_peaks
from zeroflaw.station.products.settings_toml import (
    WrittenAlignment,
    WrittenSettings,
    WrittenTiles,
    read_settings,
)
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.manifest import Product
from zeroflaw_engines.bundle.products.settings import Alignment, ProductSettings, Tiles
from zeroflaw_engines.bundle.products.settings_change import same_settings, same_view, with_template
from zeroflaw_engines.bundle.products.settings_checks import check_settings, corners
from zeroflaw_engines.bundle.products.writer import set_settings
from zeroflaw_engines.bundle.shipped import require_changeable
from zeroflaw_engines.contract import EngineSizes
from zeroflaw_engines.errors import SettingsError
from zeroflaw_engines.files import sha256_of_file
from zeroflaw_engines.image_files.frame import Frame

_AS_STORED = Reading()


@dataclass(frozen=True, eq=False)
class PlannedEdit:
    """Settings that fit a product and a photo; nothing is stored yet.

    Attributes:
        bundle: In which they were held against the product.
        product: The product's name in it.
        settings: Without the file of a new reference photo.
        template: The PNG of that photo; None if there is none, or the one that the product has.
        overlay: uint8 [H, W, 3], RGB: the settings drawn on the photo.
        warnings: What is to be known of the settings and the photos.
    """

    bundle: Bundle
    product: str
    settings: ProductSettings
    template: bytes | None
    overlay: Frame
    warnings: tuple[str, ...]

    @property
    def dropped(self) -> DroppedParts:
        """What the product will lose."""
        manifest = self.bundle.manifest
        entry = manifest.products[self.product]
        _, new = with_template(manifest, entry.settings, self.settings, self.template)
        return dropped_parts(entry, self.settings, new_photo=bool(new))

    def store(self) -> Bundle:
        """Store the settings, and return the bundle as it is then.

        Raises:
            SettingsError: Another process has changed the product's reference photo meanwhile.
            ProductError: The product is gone.
            BundleError: The bundle cannot be written, or was replaced by another meanwhile.
        """
        return set_settings(self.bundle, self.product, self.settings, template=self.template)


@dataclass(frozen=True)
class DroppedParts:
    """What a product loses with its old settings.

    Attributes:
        changed: Whether its settings are others at all.
        threshold: Its own decision threshold, in [0, 1]; None if it has none, or keeps it.
        bank: Whether it loses its reference bank.
    """

    changed: bool
    threshold: float | None
    bank: bool


@dataclass(frozen=True, eq=False)
class EditedProduct:
    """What became of one edit.

    Attributes:
        bundle: The bundle as it is now.
        product: The product's name in it.
        settings: As they are stored.
        dropped: What went with the old settings.
        overlay: uint8 [H, W, 3], RGB: the settings drawn on the photo.
        warnings: What is to be known of the settings and the photos.
    """

    bundle: Bundle
    product: str
    settings: ProductSettings
    dropped: DroppedParts
    overlay: Frame
    warnings: tuple[str, ...]


def edit_product(
    bundle: Bundle,
    product: str,
    settings_toml: Path,
    photo: Path,
    *,
    reading: Reading = _AS_STORED,
) -> EditedProduct:
    """Give a product the settings that a file says, once they have been held against a photo.

    Arguments and errors are those of `plan_edit`, and `PlannedEdit.store` has more errors.
    """
    require_changeable(bundle.path)
    plan = plan_edit(bundle, product, settings_toml, photo, reading=reading)
    dropped = plan.dropped
    changed = plan.store()
    settings = changed.manifest.products[plan.product].settings or plan.settings
    return EditedProduct(changed, plan.product, settings, dropped, plan.overlay, plan.warnings)


def plan_edit(
    bundle: Bundle,
    product: str,
    settings_toml: Path,
    photo: Path,
    *,
    reading: Reading = _AS_STORED,
) -> PlannedEdit:
    """Read settings from a file, hold them against a product and a photo, and draw them.

    Args:
        product: One that the bundle has.
        settings_toml: docs/large_frames.md describes it.
        photo: As the line takes it: frames of its size are inspected, and frames are aligned with
            it where the settings have an alignment and name no other photo.
        reading: How the photos are read.

    Raises:
        SettingsError: The settings contradict themselves, the photo or the bundle; the error
            names the place.
        ProductError: The bundle does not know the product.
        ImageFileError: A photo cannot be read completely.
        FrameError: A photo is larger than is accepted, or shows nothing to align with.
    """
    bundle.text_embeddings(product)
    name = bundle.product_name(product) or product
    before = bundle.manifest.products[name].settings
    written = read_settings(_text_of(settings_toml), str(settings_toml))
    picture = reading.read(photo)
    frame_size = _frame_size(written, picture.frame, photo)
    tiles = _tiles(written.tiles, frame_size, bundle.manifest.sizes)
    alignment, template, aligner = None, None, None
    warnings = picture.warnings
    if written.alignment is not None:
        reference = _reference(written.alignment, settings_toml.parent, photo, picture, reading)
        if reference is None:
            alignment = _kept(written.alignment, before, frame_size)
            aligner = aligner_of(alignment, frame_size, bundle)
        else:
            path, other = reference
            _require_size(other.frame, frame_size, path)
            template = reference_template(other.frame)
            alignment = _alignment(written.alignment, sha256_of_file(path), "")
            if other is not picture:
                aligner = Aligner(alignment, reduced(other.frame).astype(np.float32))
                warnings += other.warnings
    settings = ProductSettings(
        frame_width=frame_size[1],
        frame_height=frame_size[0],
        mm_per_pixel=written.mm_per_pixel,
        tiles=tiles,
        zones=written.zones,
        rules=written.rules,
        alignment=alignment,
    )
    check_settings(settings)
    # What a view of these settings would refuse.
    grid = grid_of(settings, bundle.manifest.sizes)
    zone_layout(settings.zones, frame_size)
    seen = picture.frame if aligner is None else _aligned(picture.frame, aligner, photo)
    entry = bundle.manifest.products[name]
    if entry.threshold is None or dropped_parts(entry, settings).changed:
        default = bundle.manifest.method_parameters.decision_threshold
        warnings += uncalibrated_peaks(name, settings, default)
    return PlannedEdit(
        bundle,
        name,
        settings,
        template,
        draw_settings(seen, settings, grid),
        (*warnings, *_narrow_margins(settings)),
    )


def dropped_parts(
    entry: Product, settings: ProductSettings | None, *, new_photo: bool = False
) -> DroppedParts:
    """Say what a product loses when it gets other settings, or none.

    Args:
        entry: The product as it is.
        new_photo: Whether a new reference photo comes with them.
    """
    before = entry.settings
    if not new_photo and same_settings(before, settings):
        return DroppedParts(False, None, False)
    same_bank = not new_photo and same_view(before, settings)
    return DroppedParts(True, entry.threshold, entry.reference is not None and not same_bank)


def grid_of(settings: ProductSettings, sizes: EngineSizes) -> TileGrid:
    """Return the tiles of a product's frames; one where they are seen as a whole.

    Raises:
        SettingsError: Tiles are smaller than the patch grid.
    """
    grid = tile_grid(settings.tiles, settings.frame_size, sizes)
    if grid is not None:
        return grid
    whole = Tiles(rows=1, columns=1)
    return TileGrid(whole, settings.frame_size, sizes.clip_image_size, patches_of(sizes))


def takes_threshold(settings: ProductSettings | None) -> bool:
    """Return whether a product's decision threshold decides, and not fixed limits alone."""
    if settings is None or not settings.rules:
        return True
    return any(
        (rule.min_peak if rule.by == "regions" else rule.min_image_score) is None
        for rule in settings.rules
    )


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"the settings {path} cannot be read: {error}", "name a TOML file in UTF-8"
        ) from error


def _frame_size(written: WrittenSettings, frame: Frame, photo: Path) -> tuple[int, int]:
    height, width = frame.shape[:2]
    size = (written.frame_height or height, written.frame_width or width)
    _require_size(frame, size, photo)
    return size


def _require_size(frame: Frame, size: tuple[int, int], photo: Path) -> None:
    height, width = frame.shape[:2]
    if (height, width) != size:
        raise SettingsError(
            f"frame_width, frame_height: the settings are made for frames of {size[1]} x {size[0]}"
            f" px, and the photo {photo} has {width} x {height} px",
            "give a photo as the line takes it; leave both settings out to take its size, and draw"
            " the zones anew",
        )


def _tiles(
    written: WrittenTiles | None, frame_size: tuple[int, int], sizes: EngineSizes
) -> Tiles | None:
    if written is None:
        return None
    rows, columns = written.rows, written.columns
    if written.smallest_defect is not None:
        rows, columns = grid_for_defect(written.smallest_defect, frame_size, sizes, written.overlap)
    return Tiles(
        rows=rows or 1,
        columns=columns or 1,
        overlap=written.overlap,
        coarse_to_fine=written.coarse_to_fine,
        coarse_limit=written.coarse_limit,
        banks=written.banks,
    )


def _reference(
    written: WrittenAlignment, folder: Path, photo: Path, picture: ReadPicture, reading: Reading
) -> tuple[Path, ReadPicture] | None:
    """Find the reference photo of an alignment; None if it is the one that the product has."""
    if written.photo is not None:
        path = folder / written.photo
        return path, reading.read(path)
    if written.photo_sha256 not in (None, sha256_of_file(photo)):
        return None
    return photo, picture


def _kept(
    written: WrittenAlignment, before: ProductSettings | None, frame_size: tuple[int, int]
) -> Alignment:
    known = None if before is None else before.alignment
    if before is None or known is None or known.photo != written.photo_sha256:
        raise SettingsError(
            f"alignment.photo_sha256: neither the product nor the photo given is the reference"
            f" photo {str(written.photo_sha256)[:12]}",
            "leave it out to align frames with the photo given, or name a file: photo = PATH",
        )
    if before.frame_size != frame_size:
        raise SettingsError(
            f"alignment.photo_sha256: the product's reference photo has {before.frame_width} x"
            f" {before.frame_height} px, and its frames {frame_size[1]} x {frame_size[0]} px",
            "leave it out to align frames with the photo given",
        )
    return _alignment(written, known.photo, known.template)


def _alignment(written: WrittenAlignment, photo: str, template: str) -> Alignment:
    fields = msgspec.structs.asdict(written)
    del fields["photo_sha256"]
    return Alignment(**{**fields, "photo": photo, "template": template})


def _aligned(frame: Frame, aligner: Aligner, photo: Path) -> Frame:
    aligned = aligner.align(frame)
    if aligned.fault is not None:
        raise SettingsError(
            f"alignment: the photo {photo} would be held: {aligned.fault}",
            "give a photo of a part in its fixture, widen the limits, or take another reference",
        )
    return aligned.frame


def _narrow_margins(settings: ProductSettings) -> tuple[str, ...]:
    """Say which zones leave the picture in a frame that alignment still allows."""
    if settings.alignment is None:
        return ()
    height, width = settings.frame_size
    texts = []
    for number, zone in enumerate(settings.zones):
        points = corners(zone, settings.frame_size)
        margin = float(np.minimum(points, (width, height) - points).min())
        if zone.kind == "include" and margin < settings.alignment.max_shift:
            texts.append(
                f"zones[{number}]: the zone {zone.name!r} lies {margin:g} px from the frame's"
                f" border: a part that is shifted further than that is held, though max_shift is"
                f" {settings.alignment.max_shift:g} px"
            )
    return tuple(texts)
