"""SAM's attention with decomposed relative position, written so that a backend can fuse it.

SAM adds q . Rh[row of the key] + q . Rw[column of the key] to the scores, which depends on the
query and which no fused attention computes. There are three ways to write it, all exact:

- `extended`: those products are extra channels of the queries, and the keys carry the one-hot of
  their row and column in the same channels. One plain attention over 80 + 64 + 64 channels gives
  the same scores without ever holding a bias matrix. The values keep their 80 channels.
- `extended_padded`: the same for kernels that want keys and values of one width, a multiple
  of 8: the channels and the values are padded with zeros and the result is cut.
- `additive`: the products are summed to a mask of the scores' size that is added to them, and
  the attention is written out as two products with a softmax between them. ONNX Runtime's CPU
  `Attention` is slower than that, and OpenVINO fuses exactly this pattern.
"""

from __future__ import annotations

from typing import Any, Final, get_args

import torch
from segment_anything.modeling.image_encoder import get_rel_pos
from torch import nn
from torch.nn import functional

from zeroflaw_engines.bundle.graph_entries import RelativePositionForm
from zeroflaw_engines.errors import ExportError

# Every module of SAM has a relative position: of the forms of graphs, `none` is not for them.
AttentionForm = RelativePositionForm

ATTENTION_OF_TARGET: Final[dict[str, AttentionForm]] = {
    "onnxruntime": "additive",
    "openvino": "additive",
    "tensorrt": "extended_padded",
}
"""The form that serves each target best; docs/encoder_speed.md gives the measurements."""

# A CPU's attention holds the scores of all its heads at once: 1 GiB for the 16 heads of a global
# block. Global attention therefore runs in groups of heads, except where kernels are fused.
_GLOBAL_HEAD_GROUPS: Final[dict[AttentionForm, int]] = {
    "extended": 4,
    "extended_padded": 1,
    "additive": 4,
}
_PADDED_TO: Final = 8


class RelativePositionAttention(nn.Module):
    """Attention inside windows of `side` x `side` tokens, from queries, keys and values.

    Args:
        attention: The `Attention` of segment_anything whose relative positions are used.
        side: Side of a window, tokens.
        in_groups: Whether the heads run in groups, to hold fewer scores at once.

    Raises:
        ExportError: There is no such form.
    """

    rel_pos_rows: torch.Tensor
    rel_pos_columns: torch.Tensor

    def __init__(
        self,
        attention: Any,  # noqa: ANN401 - segment_anything's Attention is untyped
        side: int,
        form: AttentionForm,
        *,
        in_groups: bool,
    ) -> None:
        super().__init__()
        if form not in get_args(AttentionForm):
            raise ExportError(
                f"there is no form of attention {form!r}",
                f"choose one of: {', '.join(get_args(AttentionForm))}",
            )
        self.form = form
        self.side = side
        self.heads = attention.num_heads
        self.scale = attention.scale
        at_once = max(1, self.heads // _GLOBAL_HEAD_GROUPS[form]) if in_groups else self.heads
        self.head_groups = [slice(i, i + at_once) for i in range(0, self.heads, at_once)]
        rows = _relative_positions(attention.rel_pos_h, side)
        columns = _relative_positions(attention.rel_pos_w, side)
        # Padding of the tables gives channels of zeros at no cost when the graph runs.
        self.spare = -(rows.shape[1] + 2 * side) % _PADDED_TO if form == "extended_padded" else 0
        self.register_buffer("rel_pos_rows", rows)
        self.register_buffer("rel_pos_columns", functional.pad(columns, (0, self.spare)))

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, key_place: torch.Tensor | None
    ) -> torch.Tensor:
        """Compute softmax(q k^T * scale + relative position) v.

        Args:
            q: Queries, float32 [windows, heads, side * side, width].
            k: Keys, of the same shape.
            v: Values, of the same shape.
            key_place: Where each key stands, from `key_places`.

        Returns:
            float32 of the shape of `v`.
        """
        results = [
            self._attend(
                q[:, some],
                k[:, some],
                v[:, some],
                None if key_place is None else key_place[:, some],
            )
            for some in self.head_groups
        ]
        return results[0] if len(results) == 1 else torch.cat(results, dim=1)

    def key_places(self, windows: int) -> torch.Tensor | None:
        """Return the one-hot row and column of every key.

        Returns:
            float32 [windows, heads, side * side, 2 * side + spare], with zeros in the spare
            channels of `extended_padded`; None for `additive`, which needs no such constant.
        """
        if self.form == "additive":
            return None
        place = torch.arange(self.side * self.side)
        one_hot = torch.cat(
            [functional.one_hot(at, self.side) for at in (place // self.side, place % self.side)],
            dim=-1,
        )
        one_hot = functional.pad(one_hot, (0, self.spare)).float()
        return one_hot.expand(windows, self.heads, -1, -1).contiguous()

    def _by_row(self, q: torch.Tensor) -> torch.Tensor:
        """Compute the products q . Rh[row] for each row: [windows, heads, side * side, side]."""
        grid = q.reshape(-1, self.side, self.side, q.shape[-1])
        products = grid.transpose(0, 1).reshape(self.side, -1, q.shape[-1]) @ self.rel_pos_rows
        products = products.reshape(self.side, -1, self.side, self.side).transpose(0, 1)
        return products.reshape(*q.shape[:3], -1)

    def _by_column(self, q: torch.Tensor) -> torch.Tensor:
        """Compute the products q . Rw[column] for each column, and zeros for the spare channels."""
        grid = q.reshape(-1, self.side, self.side, q.shape[-1])
        by_column = grid.permute(2, 0, 1, 3).reshape(self.side, -1, q.shape[-1])
        products = by_column @ self.rel_pos_columns
        products = products.reshape(self.side, -1, self.side, products.shape[-1])
        return products.permute(1, 2, 0, 3).reshape(*q.shape[:3], -1)

    def _attend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, key_place: torch.Tensor | None
    ) -> torch.Tensor:
        """Compute the attention of some heads."""
        by_row, by_column = self._by_row(q), self._by_column(q)
        if key_place is None:
            mask = by_row[..., :, None] + by_column[..., None, :]
            scores = (q * self.scale) @ k.mT + mask.reshape(*q.shape[:3], -1)
            return torch.softmax(scores, dim=-1) @ v
        queries = torch.cat([q * self.scale, by_row, by_column], dim=-1)
        keys = torch.cat([k, key_place], dim=-1)
        width = v.shape[-1]
        if self.form == "extended_padded":
            v = functional.pad(v, (0, keys.shape[-1] - width))
        result = functional.scaled_dot_product_attention(queries, keys, v, scale=1.0)
        return result[..., :width]


def _relative_positions(table: torch.Tensor, side: int) -> torch.Tensor:
    """Arrange SAM's table as one matrix for each query place: float32 [side, width, side]."""
    positions: torch.Tensor = get_rel_pos(side, side, table.detach())
    return positions.mT.contiguous()
