"""The localizers that can be exported, by name."""

from __future__ import annotations

from typing import Final

from zeroflaw_engines.errors import ExportError
from zeroflaw_export.models.localizers.anomalyclip import ANOMALYCLIP
from zeroflaw_export.models.localizers.april_gan import APRIL_GAN
from zeroflaw_export.models.localizers.localizer import Localizer
from zeroflaw_export.models.localizers.sdp import SDP, SDP_PLUS
from zeroflaw_export.models.localizers.visualad.localizer import VISUALAD
from zeroflaw_export.models.localizers.winclip import WINCLIP

DEFAULT_LOCALIZER: Final = APRIL_GAN.name

LOCALIZERS: Final[dict[str, Localizer]] = {
    one.name: one for one in (APRIL_GAN, ANOMALYCLIP, SDP, SDP_PLUS, WINCLIP, VISUALAD)
}


def localizer(name: str) -> Localizer:
    """Look up the localizer of a name.

    Raises:
        ExportError: There is none.
    """
    if name not in LOCALIZERS:
        raise ExportError(
            f"there is no localizer {name!r}", f"choose one of: {', '.join(LOCALIZERS)}"
        )
    return LOCALIZERS[name]
