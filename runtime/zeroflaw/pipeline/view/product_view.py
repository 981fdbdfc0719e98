"""The view of a product: its settings made ready for frames of one size."""

from __future__ import annotations

from dataclasses import dataclass

from zeroflaw.pipeline.view.alignment import AlignedFrame, Aligner, aligner_of
from zeroflaw.pipeline.view.tiles import TileGrid, tile_grid
from zeroflaw.pipeline.view.zones import ZoneLayout, zone_layout
from zeroflaw.records.decision import Reason
from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.products.settings import ProductSettings
from zeroflaw_engines.image_files.frame import Frame


@dataclass(frozen=True, eq=False)
class ProductView:
    """How the frames of a product are looked at.

    Attributes:
        settings: That it was made of.
        zones: None: the whole frame is judged.
        grid: None: the encoders see the frame as a whole.
        aligner: None: frames are taken as they are.
    """

    settings: ProductSettings
    zones: ZoneLayout | None
    grid: TileGrid | None
    aligner: Aligner | None

    def look(self, frame: Frame) -> FrameView:
        """Align a frame with the reference photo, and blank what is not judged.

        A frame that cannot be looked at so is seen as it is, and held.

        Args:
            frame: uint8 [H, W, 3], RGB.
        """
        height, width = frame.shape[:2]
        if (height, width) != self.settings.frame_size:
            expected = f"{self.settings.frame_width} x {self.settings.frame_height}"
            text = (
                f"the frame has {width} x {height} px, and the product's settings are made for"
                f" {expected}: set the camera as it was, or edit the settings with a new photo"
            )
            return FrameView(frame, Reason("wrong_frame_size", text), None, None, None)
        aligned = None if self.aligner is None else self.aligner.align(frame)
        if aligned is not None and aligned.fault is not None:
            return FrameView(frame, Reason("misaligned", aligned.fault), aligned, None, None)
        seen = frame if aligned is None else aligned.frame
        if self.zones is not None:
            if aligned is not None:
                lost = aligned.lost_zone(self.zones)
                if lost is not None:
                    return FrameView(frame, Reason("zone_out_of_view", lost), aligned, None, None)
            seen = self.zones.blanked(seen)
        return FrameView(seen, None, aligned, self.zones, self.grid)


@dataclass(frozen=True, eq=False)
class FrameView:
    """How one frame is looked at.

    Attributes:
        seen: uint8 [H, W, 3], RGB: what the encoders are shown. Of an aligned frame it is in the
            reference photo's pixels, and so are the zones and all maps and masks of it.
        held: Why the frame is held, whatever the encoders say of it; None if it can be judged.
        aligned: None if the product's frames are taken as they are.
        zones: What is judged of `seen`; None: all of it.
        grid: Its tiles; None: it is seen as a whole.
    """

    seen: Frame
    held: Reason | None
    aligned: AlignedFrame | None
    zones: ZoneLayout | None
    grid: TileGrid | None


def product_view(
    settings: ProductSettings | None, bundle: Bundle, known: ProductView | None = None
) -> ProductView | None:
    """Make the view of a product ready; None if it has no settings.

    Args:
        bundle: Has the file of the reference photo, and the sizes of the engines.
        known: One of the same product that is ready already; taken if its settings are the same.

    Raises:
        SettingsError: No area is left to judge, or tiles are smaller than the patch grid.
        BundleDamagedError: The reference photo cannot be read.
    """
    if settings is None:
        return None
    if known is not None and known.settings == settings:
        return known
    zones = zone_layout(settings.zones, settings.frame_size)
    if zones is not None:
        zones.prepare()
    return ProductView(
        settings,
        zones,
        tile_grid(settings.tiles, settings.frame_size, bundle.manifest.sizes),
        aligner_of(settings.alignment, settings.frame_size, bundle),
    )
