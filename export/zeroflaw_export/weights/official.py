"""The published weights, by name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from zeroflaw_engines.errors import WeightsError
from zeroflaw_export.weights.download import Digest, ReportBytes, download


@dataclass(frozen=True)
class OfficialWeights:
    """One published file.

    Attributes:
        url: Where its authors publish it.
        digest: What it must hash to.
        licence: Under which it is published.
        saved_as: Name of the downloaded file; default: the last part of the URL, where that says
            what it is.
    """

    url: str
    digest: Digest
    licence: str
    saved_as: str | None = None

    @property
    def filename(self) -> str:
        """Name of the downloaded file."""
        return self.saved_as or self.url.rsplit("/", 1)[-1]


_SAM: Final = "https://dl.fbaipublicfiles.com/segment_anything/"
_CLIP: Final = "https://openaipublic.azureedge.net/clip/models/"
_CLIP_336: Final = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
_OPEN_CLIP: Final = "https://github.com/mlfoundations/open_clip/releases/download/v0.2-weights/"
# Pinned to the commit whose tree gives the object ids below.
_APRIL_GAN: Final = (
    "https://github.com/ByChelsea/VAND-APRIL-GAN/raw/"
    "f13b8a634e04f9fde8fa03db125b25af5695d8e1/exps/pretrained/"
)
# Git LFS keeps the files' SHA-256 in the tree of the commit.
_VISUALAD: Final = (
    "https://media.githubusercontent.com/media/7HHHHH/VisualAD/"
    "8479132d641456345019aed1c8bb6b2d11941068/weight/"
)
_ANOMALYCLIP: Final = (
    "https://github.com/zqhang/AnomalyCLIP/raw/45ed4dd35c05797d854294b5e8d585c545920089/"
    "checkpoints/9_12_4_multiscale"
)

OFFICIAL_WEIGHTS: Final[dict[str, OfficialWeights]] = {
    "sam_vit_h": OfficialWeights(
        _SAM + "sam_vit_h_4b8939.pth",
        Digest("sha256", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e"),
        "Apache-2.0",
    ),
    "sam_vit_l": OfficialWeights(
        _SAM + "sam_vit_l_0b3195.pth",
        Digest("sha256", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622"),
        "Apache-2.0",
    ),
    "sam_vit_b": OfficialWeights(
        _SAM + "sam_vit_b_01ec64.pth",
        Digest("sha256", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912"),
        "Apache-2.0",
    ),
    # OpenAI's URLs carry the SHA-256 of the file.
    "clip_vit_l_14_336": OfficialWeights(
        f"{_CLIP}{_CLIP_336}/ViT-L-14-336px.pt", Digest("sha256", _CLIP_336), "MIT"
    ),
    # open_clip publishes the first digits of the SHA-256, in the name of the file, and no more.
    "clip_vit_b_16_plus_240": OfficialWeights(
        _OPEN_CLIP + "vit_b_16_plus_240-laion400m_e31-8fb26589.pt",
        Digest("sha256_prefix", "8fb26589"),
        "MIT",
    ),
    # Trained on MVTec-AD, to be used on anything else; and the other way round. Their only
    # published digests are git object ids.
    "april_gan_mvtec": OfficialWeights(
        _APRIL_GAN + "mvtec_pretrained.pth",
        Digest("git_blob", "a057cec6c2ba5996baa0160a51e155908156813f"),
        "MIT (trained on MVTec-AD, CC BY-NC-SA 4.0)",
    ),
    "april_gan_visa": OfficialWeights(
        _APRIL_GAN + "visa_pretrained.pth",
        Digest("git_blob", "86d6848c543f8393663d35c0333498ffb5ce9b68"),
        "MIT (trained on VisA, CC BY 4.0)",
    ),
    # Trained on VisA, to be used on anything else; and the other way round. Both are CLIP.pth.
    "visualad_visa": OfficialWeights(
        _VISUALAD + "train_on_visa/CLIP.pth",
        Digest("sha256", "fed8ed5e0973e9adb53a2c91e066eb5ba3f9a42fbf80f115a26998629d1f0a5b"),
        "MIT by its README (trained on VisA, CC BY 4.0)",
        saved_as="visualad_visa.pth",
    ),
    "visualad_mvtec": OfficialWeights(
        _VISUALAD + "train_on_mvtec/CLIP.pth",
        Digest("sha256", "596f3ed0c0cfe78a314b41fc42a8adfc26b86ab1928f058ce256135cb407b32c"),
        "MIT by its README (trained on MVTec-AD, CC BY-NC-SA 4.0)",
        saved_as="visualad_mvtec.pth",
    ),
    # The folder that is named after VisA holds what was trained on MVTec-AD to be tested there
    # (train.sh, test.sh).
    "anomalyclip_mvtec": OfficialWeights(
        _ANOMALYCLIP + "_visa/epoch_15.pth",
        Digest("git_blob", "72adc786e031b49ea288ba5f815f0d38cf158708"),
        "MIT (trained on MVTec-AD, CC BY-NC-SA 4.0)",
        saved_as="anomalyclip_mvtec.pth",
    ),
    "anomalyclip_visa": OfficialWeights(
        _ANOMALYCLIP + "/epoch_15.pth",
        Digest("git_blob", "c90f1d9d92d158b436a8fc193f984d4cec8b1fc8"),
        "MIT (trained on VisA, CC BY 4.0)",
        saved_as="anomalyclip_visa.pth",
    ),
}


def default_cache() -> Path:
    """Return where downloads go: `$ZEROFLAW_CACHE`, or `zeroflaw` in the user's cache directory."""
    named = os.environ.get("ZEROFLAW_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "zeroflaw"


def weights_file(
    name_or_path: str, cache: Path | None = None, report: ReportBytes | None = None
) -> Path:
    """Find the file of weights given by official name or by path.

    Args:
        name_or_path: A name of `OFFICIAL_WEIGHTS`, which is downloaded once, or a local file.
        cache: Directory of downloads; default: see `default_cache`.
        report: Called with the bytes that are there and the bytes in all, None if unknown.

    Raises:
        WeightsError: It is neither.
        DownloadError: The download failed.
    """
    official = OFFICIAL_WEIGHTS.get(name_or_path)
    if official is not None:
        target = (cache or default_cache()) / "weights" / official.filename
        return download(official.url, target, official.digest, report)
    path = Path(name_or_path)
    if not path.is_file():
        raise WeightsError(
            f"there are no weights {name_or_path!r}",
            f"give a file, or one of the names {', '.join(OFFICIAL_WEIGHTS)}",
        )
    return path
