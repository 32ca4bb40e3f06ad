"""One stream read as several stretches side by side, with equal numbers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn import functional as F

from transformer_xl.data.segments import NOT_COUNTED, Segment, Segments


def stretches(stream: Segments, num_rows: int, warm_up: int) -> Iterator[Segment]:
    """Yield the segments of one stream, `num_rows` at a time: row b reads its stretch of the text from front to back.

    Each row but the first begins `warm_up` segments before its own stretch, to fill its memory with what one stream
    would hold; of these no target counts. A text too short for so many rows gets fewer.

    Args:
        stream: The segments of one stream, of batch size 1.
        num_rows: Number of rows B at most.
        warm_up: After how many segments the memory holds nothing that depends on where a row began.
    """
    num_rows = min(num_rows, max(1, len(stream) - warm_up))
    num_steps = -(-(len(stream) + (num_rows - 1) * warm_up) // num_rows)
    starts = [row * (num_steps - warm_up) for row in range(num_rows)]
    for step in range(num_steps):
        rows = []
        for row, start in enumerate(starts):
            segment = stream[min(start + step, len(stream) - 1)]
            targets = segment.targets
            if start + step >= len(stream) or (row > 0 and step < warm_up):
                targets = torch.full_like(targets, NOT_COUNTED)
            missing = stream.segment_length - targets.shape[1]
            # The last segment of a text may be short; nothing that counts comes after the padding.
            rows.append((F.pad(segment.inputs, (0, missing)), F.pad(targets, (0, missing), value=NOT_COUNTED)))
        yield Segment(*(torch.cat(parts) for parts in zip(*rows, strict=True)))
