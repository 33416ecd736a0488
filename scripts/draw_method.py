"""Draw the figures of docs/method.md: `python scripts/draw_method.py docs/images`.

method_flow.png: the quantities distilled from teacher to student. method_crop.png: from an image to crops. method_maps.png:
a teacher's target, and simulated heat maps of a student. method_pull.png: gradient of each term over the student's distance.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distilpose.data import CocoKeypoints, PoseAugmentation
from distilpose.data.coco import MEAN, STD, read_image
from distilpose.data.codec import encode_heatmaps
from distilpose.data.geometry import region_of_box
from distilpose.data.synthetic import SyntheticSpec, write_synthetic
from distilpose.files import atomic_write
from distilpose.losses import divergence_loss, moment_loss, regression_loss, simulated_heatmap_loss, simulated_heatmaps
from distilpose.visualization.drawing import crop_image, draw_skeleton, heatmap_image

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

SIZE, CELLS = (256, 192), (64, 48)
STUDENT, TEACHER, LABEL = "#1f6fb2", "#3b3b3b", "#4c9f70"


def flow() -> Figure:
    """Draw the teacher above, the student below, and the four distilled quantities."""
    figure, panel = plt.subplots(figsize=(11.3, 4.2))
    panel.set(xlim=(0, 11.3), ylim=(0, 4.2))
    panel.axis("off")
    names = ["backbone", "token-distilling\nencoder", "head"]
    for y, colour, role, result in (
        (3.1, TEACHER, "teacher, frozen", "heat maps\nK x 64 x 48"),
        (0.6, STUDENT, "student", "x, y, score,\nσx, σy of K joints"),
    ):
        panel.text(0.1, y + 0.78, role, color=colour, weight="bold")
        for number, name in enumerate([*names, result]):
            _box(panel, 1.4 + 2.6 * number, y, name, colour, filled=number == len(names))
            if number:
                _arrow(panel, (0.8 + 2.6 * number, y + 0.3), (1.35 + 2.6 * number, y + 0.3), colour)
        _arrow(panel, (0.75, 2.15), (1.35, y + 0.3), "0.5")
    panel.text(0.1, 2.1, "crop", va="center")
    for x, text in ((4.9, "visual and\nkeypoint tokens"), (9.7, "simulated heat map,\nconfidence")):
        _arrow(panel, (x, 3.05), (x, 1.25), "#c8553d")
        panel.text(x + 0.1, 2.15, text, color="#c8553d", va="center")
    panel.text(7.1, 0.2, "regression: the labels", color=LABEL, va="center", ha="center")
    _arrow(panel, (8.45, 0.2), (9.2, 0.55), LABEL)
    return figure


def _box(panel: Axes, x: float, y: float, text: str, colour: str, filled: bool) -> None:
    shape = FancyBboxPatch(
        (x, y), 1.9, 0.6, boxstyle="round,pad=0.05", edgecolor=colour, facecolor=f"{colour}22" if filled else "white"
    )
    panel.add_patch(shape)
    panel.text(x + 0.95, y + 0.3, text, ha="center", va="center", fontsize=9)


def _arrow(panel: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    panel.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=colour, linewidth=1.4))


def crops(folder: Path) -> tuple[Figure, Tensor, NDArray]:
    """Draw a synthetic person with its box, the region around it and crops; return the joints and the plain crop too."""
    spec = SyntheticSpec(num_train=1, num_val=1, image_size=320, max_persons=1, variety=0.5, drawing_seed=4)
    root = write_synthetic(folder / "people", spec)
    files = root / "annotations" / "person_keypoints_val.json", root / "val"
    plain = CocoKeypoints(*files, input_size=SIZE)
    varied = CocoKeypoints(*files, input_size=SIZE, train=True, augmentation=PoseAugmentation())
    person = plain[0]
    image = read_image(next((root / "val").iterdir()))[..., ::-1]
    x, y, width, height = np.asarray(person.bbox)
    region = region_of_box(person.bbox, SIZE)
    corner = region.centre - region.size / 2
    figure, panels = plt.subplots(1, 5, figsize=(14, 3.9))
    panels[0].imshow(image)
    panels[0].add_patch(Rectangle((x, y), width, height, fill=False, color=LABEL, linewidth=2))
    panels[0].add_patch(Rectangle(tuple(corner), *region.size, fill=False, color=STUDENT, linewidth=2, linestyle="--"))
    panels[0].set_title("box, and the region around it")
    torch.manual_seed(1)
    for number, sample in enumerate([person, varied[0], varied[0], varied[0]]):
        crop = crop_image(sample.image, MEAN, STD)
        joints = (torch.as_tensor(sample.keypoints) * torch.tensor([SIZE[1], SIZE[0]]))[None]
        panels[number + 1].imshow(draw_skeleton(crop, joints, torch.as_tensor(sample.weights)[None], plain.skeleton))
        panels[number + 1].set_title("the crop" if number == 0 else "augmented")
    for panel in panels:
        panel.axis("off")
    return figure, torch.as_tensor(person.keypoints), crop_image(person.image, MEAN, STD)


def maps(joints: Tensor, crop: NDArray) -> Figure:
    """Draw the target heat map of a teacher (sigma 2), and simulated heat maps of a student."""
    joint = joints[None, :1]
    target, _ = encode_heatmaps(joint, torch.ones(1, 1), CELLS)
    off = joint + torch.tensor([4.0, 3.0]) / torch.tensor([CELLS[1], CELLS[0]])
    figure, panels = plt.subplots(1, 5, figsize=(14, 3.9))
    panels[0].imshow(crop)
    panels[0].plot(*(joint[0, 0] * torch.tensor([SIZE[1], SIZE[0]])).tolist(), "+", color="white", markersize=14)
    panels[0].set_title("the joint")
    panels[1].imshow(heatmap_image(target[0, 0]))
    panels[1].set_title("the teacher's target, σ = 2")
    for panel, (keypoint, sigma) in zip(panels[2:], ((joint, 2.0), (off, 2.0), (off, 5.0)), strict=True):
        simulated, _ = simulated_heatmaps(keypoint, torch.full_like(keypoint, sigma), CELLS)
        loss = float(simulated_heatmap_loss(keypoint, torch.full_like(keypoint, sigma), target, torch.ones(1, 1)))
        panel.imshow(heatmap_image(simulated[0, 0]))
        panel.set_title(f"student, {'5' if keypoint is off else '0'} cells off, σ = {sigma:g}\nloss {loss:.5f}")
    for panel in panels:
        panel.axis("off")
    return figure


def gradients() -> Figure:
    """Draw the gradient of each term in x over the distance to the teacher's peak, for a student with a sigma of 2 cells."""
    cells = torch.linspace(0, 24, 97)
    centre = torch.tensor([[[0.25, 0.5]]])
    target, _ = encode_heatmaps(centre, torch.ones(1, 1), CELLS)
    ones = torch.ones(1, 1)
    sigmas = torch.full((1, 1, 2), 2.0)
    terms: dict[str, Callable[[Tensor], Tensor]] = {
        "regression": lambda place: regression_loss(place, centre, ones),
        "simulated heat map": lambda place: simulated_heatmap_loss(place, sigmas, target, ones),
        "divergence, Gaussian": lambda place: divergence_loss(place, sigmas, target, ones),
        "divergence, Laplace": partial(_laplace, sigmas=sigmas, target=target, weights=ones),
        "moments": lambda place: moment_loss(place, sigmas, target, ones),
    }
    figure, panel = plt.subplots(figsize=(8, 4.2))
    for name, term in terms.items():
        strength = [_strength(term, centre, float(distance)) for distance in cells]
        panel.plot(
            cells,
            np.array(strength) / max(strength),
            label=name,
            linewidth=2,
            linestyle="--" if name == "regression" else "-",
            zorder=3 if name == "regression" else 2,
        )
    panel.set(xlabel="distance from the teacher's peak, cells", ylabel="gradient in x, as a share of its largest")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False)
    return figure


def _laplace(place: Tensor, sigmas: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    return divergence_loss(place, sigmas, target, weights, shape="laplace")


def _strength(term: Callable[[Tensor], Tensor], centre: Tensor, distance: float) -> float:
    place = (centre + torch.tensor([distance / CELLS[1], 0.0])).requires_grad_()
    (gradient,) = torch.autograd.grad(term(place), place)
    return abs(float(gradient[0, 0, 0]))


def main(output: Path) -> None:
    """Draw all four figures."""
    with tempfile.TemporaryDirectory() as folder:
        crop_figure, joints, crop = crops(Path(folder))
    figures = {"flow": flow(), "crop": crop_figure, "maps": maps(joints, crop), "pull": gradients()}
    for name, figure in figures.items():
        figure.set_layout_engine("constrained")
        with atomic_write(output / f"method_{name}.png") as temporary:
            figure.savefig(temporary, dpi=100)
        plt.close(figure)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("error: give the folder for the figures: python scripts/draw_method.py docs/images")
    main(Path(sys.argv[1]))
