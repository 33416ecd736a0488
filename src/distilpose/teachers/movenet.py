"""MoveNet's maps: its heat maps show everyone in the crop, and its own decoding goes by the person in the middle."""

from __future__ import annotations

import torch
from torch import Tensor

from distilpose.teachers.network import NetworkOutput

# pixels. A joint at crop pixel u has its peak at cell (u - OFFSET) / 4, and u = 4 (cell + refinement) - REFINED. Both were
# measured on photographs: no description of MoveNet states them.
STRIDE, OFFSET, REFINED = 4, 1.5, 0.25
NEARNESS = 1.8  # cells added to a distance before a map is divided by it


def read_movenet(heatmaps: Tensor, centre: Tensor, regression: Tensor, offsets: Tensor) -> NetworkOutput:
    """One person's maps: divided by the distance to the joint's rough place, at the height that their peak had.

    The person is the cell with the highest centre value, divided by the distance to the middle of the crop. Trust is the
    root of a peak's height: on Leeds Sports' photographs 0.55 of the peaks from 0.4 to 0.5 are right, and 0.82 of those from
    0.7 to 0.8; the root is off by 0.075 on average and the height by 0.086.

    Args:
        heatmaps: (N, K, h, w) in [0, 1], of everyone.
        centre: (N, 1, h, w) whether a person's centre is there.
        regression: (N, 2 K, h, w) cells, as pairs (y, x) from a person's centre to the joints.
        offsets: (N, 2 K, h, w) cells, as pairs (y, x) from a cell to the joint in it.
    """
    heatmaps, centre, regression, offsets = (map_.float() for map_ in (heatmaps, centre, regression, offsets))
    count, joints, rows, columns = heatmaps.shape
    y, x = (torch.arange(size, device=heatmaps.device, dtype=torch.float32) for size in (rows, columns))
    y = y[:, None]
    to_middle = ((y - rows / 2) ** 2 + (x - columns / 2) ** 2).sqrt()
    person = (centre[:, 0] / (to_middle + NEARNESS)).flatten(1).argmax(1)[:, None, None].expand(-1, 2 * joints, 1)
    way = regression.flatten(2).gather(2, person).view(count, joints, 2, 1, 1)
    person = person[:, :1, :, None]
    down = y - (torch.div(person, columns, rounding_mode="floor") + way[:, :, 0])
    across = x - (person % columns + way[:, :, 1])
    weighted = heatmaps / ((down**2 + across**2).sqrt() + NEARNESS)

    top, best = weighted.flatten(2).max(dim=2, keepdim=True)
    height = heatmaps.flatten(2).gather(2, best)
    maps = weighted * (height / top.clamp(min=1e-12))[..., None]
    inside = offsets.view(count, joints, 2, -1).gather(3, best[:, :, None].expand(-1, -1, 2, 1))[..., 0]
    cells = torch.cat([best % columns, torch.div(best, columns, rounding_mode="floor")], dim=2) + inside.flip(-1)
    pixels = STRIDE * cells - REFINED
    return NetworkOutput(maps.clamp(min=0), height[..., 0].clamp(0, 1).sqrt(), cells=(pixels - OFFSET) / STRIDE)
