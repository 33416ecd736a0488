"""How the crop and the heat maps of a network are related to pixels: the place where half a cell is lost in silence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distilpose.data.geometry import region_of_box, warp_of_region


@dataclass(frozen=True)
class Convention:
    """Crop and cells of a network. A joint at pixel u of its crop has its peak at cell (u - offset) / stride.

    Pixel 0 is the centre of the first pixel. The convention of this package is that of the release: stride 4, offset 0, not
    unbiased.

    Attributes:
        input_size: (H, W) of the crop in pixels.
        map_size: (h, w) of the maps in cells.
        stride: (x, y) pixels from one cell to the next.
        offset: (x, y) pixel at the centre of the first cell.
        padding: factor on a person's box.
        unbiased: whether the padded box reaches from the centre of the first pixel to the centre of the last one, as in UDP
            (Huang et al., CVPR 2020); otherwise it starts there too, but is W pixels wide.
    """

    input_size: tuple[int, int]
    map_size: tuple[int, int]
    stride: tuple[float, float]
    offset: tuple[float, float] = (0.0, 0.0)
    padding: float = 1.25
    unbiased: bool = False

    @classmethod
    def by_ratio(
        cls, input_size: tuple[int, int], map_size: tuple[int, int], padding: float = 1.25, offset: float = 0.0
    ) -> Convention:
        """Cell = pixel / ratio of the sizes, as in the release, SimpleBaseline and HRNet; `offset` is for both axes."""
        stride = (input_size[1] / map_size[1], input_size[0] / map_size[0])
        return cls(input_size, map_size, stride, (offset, offset), padding)

    @classmethod
    def udp(cls, input_size: tuple[int, int], map_size: tuple[int, int], padding: float = 1.25) -> Convention:
        """The first cell is the first pixel and the last cell the last pixel, as in ViTPose: cell 47 is pixel 191."""
        stride = ((input_size[1] - 1) / (map_size[1] - 1), (input_size[0] - 1) / (map_size[0] - 1))
        return cls(input_size, map_size, stride, padding=padding, unbiased=True)

    def warp_of_box(self, box: ArrayLike) -> NDArray[np.float64]:
        """The (2, 3) matrix from image pixels to pixels of the network's crop, for a box x, y, width, height."""
        warp = warp_of_region(region_of_box(box, self.input_size, self.padding), self.input_size)
        if self.unbiased:
            height, width = self.input_size
            warp = warp * np.array([[(width - 1) / width], [(height - 1) / height]])
        return np.asarray(warp, dtype=np.float64)

    def to_cells(self, warps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Matrices (..., 2, 3) to pixels of the crop as matrices to cells of the maps."""
        cells = warps.copy()
        cells[..., 2] -= self.offset
        return cells / np.array(self.stride)[:, None]

    def of_crop(self, size: tuple[int, int]) -> tuple[float, tuple[float, float]]:
        """How a crop of another size is shown to the network: resized by a factor, with bars if its aspect differs.

        Args:
            size: (H, W) of the crop.

        Returns:
            The factor, and the shift (x, y) in pixels: pixel u of the crop is pixel factor * u + shift of the network's.
        """
        factor = min(self.input_size[0] / size[0], self.input_size[1] / size[1])
        return factor, ((self.input_size[1] - factor * size[1]) / 2, (self.input_size[0] - factor * size[0]) / 2)

    def describe(self) -> str:
        """The convention in words, for the log."""
        height, width = self.input_size
        rule = "UDP" if self.unbiased else f"pixel {self.stride[0]:g} cell + {self.offset[0]:g}"
        return (
            f"crops of {height} x {width} of the box x {self.padding:g}, maps of {self.map_size[0]} x {self.map_size[1]} "
            f"cells ({rule})"
        )

    def to_dict(self) -> dict[str, Any]:
        """In plain containers."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
