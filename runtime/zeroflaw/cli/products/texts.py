"""What the commands say of a product: its threshold and its reference bank."""

from __future__ import annotations

from zeroflaw_engines.bundle.bundle import Bundle
from zeroflaw_engines.bundle.manifest import Product


def bank_text(bundle: Bundle, name: str, product: Product) -> str:
    """Return what is to be said of a product's reference bank in its line; empty without one."""
    reference = product.reference
    if reference is None:
        return ""
    size = bundle.manifest.files[reference.bank].bytes
    return (
        f"; learned {reference.created[:10]} from {len(reference.photos)} photos,"
        f" bank {str(bundle.reference_digest(name))[:12]} of {reference.rows} rows,"
        f" {size / 1e6:.1f} MB"
    )


def threshold_text(product: Product, default: float) -> str:
    """Return a product's decision threshold and where it comes from, in one line."""
    if product.threshold is None:
        return f"threshold {default} (default)"
    own = f"threshold {product.threshold:.6f}"
    calibration = product.calibration
    if calibration is None:
        return f"{own} (not calibrated)"
    interval = ""
    if calibration.interval is not None:
        low, high = calibration.interval
        interval = f" {low:.2g} to {high:.2g} with 95 % confidence,"
    return (
        f"{own}, calibrated {calibration.created[:10]} on {calibration.images} good images for"
        f" {calibration.false_reject_rate:.4g} false rejects,{interval}"
        + (" each left out of the bank," if calibration.scheme == "leave_one_out" else "")
        + f" image_scoring={calibration.image_scoring}"
        + (f" on {calibration.backend} in {calibration.precision}" if calibration.backend else "")
    )
