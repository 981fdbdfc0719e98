"""From a product's settings to new ones: the file of their reference photo, and what stays."""

from __future__ import annotations

import hashlib
from uuid import uuid4

import msgspec

from zeroflaw_engines.bundle.manifest import FileEntry, Manifest
from zeroflaw_engines.bundle.products.settings import ProductSettings
from zeroflaw_engines.errors import SettingsError


def with_template(
    manifest: Manifest,
    before: ProductSettings | None,
    settings: ProductSettings | None,
    template: bytes | None,
) -> tuple[ProductSettings | None, dict[str, bytes]]:
    """Name the file of the reference photo of new settings.

    Args:
        manifest: Of the bundle, with the settings as they were `before`.
        template: The PNG of the photo; None keeps the file that the settings name.

    Returns:
        The settings with the name, and the file by name if it is new.

    Raises:
        SettingsError: A photo came without an alignment, or is missing.
    """
    if settings is None or settings.alignment is None:
        if template is not None:
            raise SettingsError(
                "a reference photo came with settings that have no alignment",
                "give an alignment, or leave the photo out",
            )
        return settings, {}
    known = None if before is None or before.alignment is None else before.alignment.template
    if template is None:
        if settings.alignment.template != known:
            raise SettingsError(
                f"the product has no reference photo {settings.alignment.template!r}",
                "give the photo that its frames are to be aligned with",
            )
        return settings, {}
    new: dict[str, bytes] = {}
    if known is None or manifest.files[known] != file_entry(template):
        known = f"alignment-{uuid4().hex[:8]}.png"
        new[known] = template
    alignment = msgspec.structs.replace(settings.alignment, template=known)
    return msgspec.structs.replace(settings, alignment=alignment), new


def file_entry(data: bytes) -> FileEntry:
    """Return what the manifest says of a file."""
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def same_settings(before: ProductSettings | None, now: ProductSettings | None) -> bool:
    """Return whether a threshold that holds for the one holds for the other.

    The name of the reference photo's file says nothing: whoever gives a new file must compare it.
    """
    if before is None or now is None:
        return before is now
    return before.digest == now.digest


def same_view(before: ProductSettings | None, now: ProductSettings | None) -> bool:
    """Return whether the encoders are shown the same under either settings.

    As of `same_settings`, a new file of the reference photo is to be compared besides.
    """
    shown = [
        None if one is None or not (one.tiles or one.zones or one.alignment) else one.view_digest
        for one in (before, now)
    ]
    return shown[0] == shown[1]
