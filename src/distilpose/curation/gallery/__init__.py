"""A gallery of a data set as a folder of plain files: images with labels, crops as the network sees them, statistics."""

from __future__ import annotations

import html
import os
import shutil
from dataclasses import replace
from pathlib import Path
from string import Template

import cv2
import numpy as np
from numpy.typing import NDArray

from distilpose.curation.gallery.figures import draw_figures
from distilpose.curation.image_files import find_inside, read_header
from distilpose.curation.progress import show_progress
from distilpose.data.annotations import KeypointAnnotations, load_annotations
from distilpose.data.augmentation import PoseAugmentation
from distilpose.data.coco import MEAN, STD, CocoKeypoints, read_image
from distilpose.outputs import PoseBatch
from distilpose.skeleton import Skeleton
from distilpose.visualization.drawing import crop_image, draw_skeleton

VIEWS = 2  # augmented crops per person
_MAX_SIDE = 640  # pixels of the longer side of an image
_BOX = (255, 220, 60)
_PAGE = Path(__file__).with_name("page.html")


def write_gallery(
    file: Path,
    images: Path,
    output: Path,
    persons: int = 60,
    input_size: tuple[int, int] = (256, 192),
    category: str | None = None,
) -> int:
    """Write index.html and its pictures; the same file gives the same gallery.

    Args:
        file: COCO keypoint file.
        images: folder of its images.
        output: folder to write; it is renamed to this name when it is complete.
        persons: number of persons to show, drawn at random from the file.
        input_size: (H, W) of the crops.
        category: name or id, if several have keypoints.

    Returns:
        Number of persons in the gallery.

    Raises:
        DistilPoseError: the file or an image cannot be used; `check_sets` reports all problems.
        PermissionError: the name of an image leads out of the folder.
    """
    annotations = load_annotations(file, category)
    chosen = _choose(annotations, persons)
    plain, augmented = (
        CocoKeypoints(chosen, images, input_size=input_size, train=train, augmentation=PoseAugmentation())
        for train in (False, True)
    )
    temporary = output.with_name(f".{output.name}.{os.getpid()}.part")
    pictures = temporary / "pictures"
    try:
        pictures.mkdir(parents=True)
        figures = draw_figures(annotations, pictures)
        indices = show_progress(range(len(plain)), len(plain), "persons")
        blocks = [_person(annotations, plain, augmented, index, images, pictures) for index in indices]
        (temporary / "index.html").write_text(_page(annotations, figures, blocks), encoding="utf-8")
        temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return len(plain)


def _choose(annotations: KeypointAnnotations, persons: int) -> KeypointAnnotations:
    """Random persons of the file, in its order."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(annotations.annotation_ids))[:persons])
    rows = ("annotation_ids", "image_ids", "boxes", "areas", "keypoints", "labelled")
    return replace(annotations, **{name: getattr(annotations, name)[chosen] for name in rows})


def _person(
    annotations: KeypointAnnotations,
    plain: CocoKeypoints,
    augmented: CocoKeypoints,
    index: int,
    images: Path,
    folder: Path,
) -> str:
    """Draw the pictures of one person and return their HTML."""
    image_id = int(plain.instances.image_ids[index])
    number = int(plain.instances.annotation_ids[index])
    name = annotations.images[image_id].file_name
    read_header(find_inside(images, name))  # rejects untrusted files before they are decoded
    picture = _save(folder / f"{index}.jpg", _scene(annotations, image_id, number, plain.image_file(image_id)))
    crops = [("plain", plain[index])]
    crops += [(f"augmented {view + 1}", augmented[(index, VIEWS * index + view)]) for view in range(VIEWS)]
    cells = []
    for place, (title, item) in enumerate(crops):
        cells.append(_figure(_save(folder / f"{index}_{place}.jpg", _crop(item, annotations.skeleton)), title))
    caption = f"{name}, person {number}, {int(plain.instances.labelled[index].sum())} joints"
    return (
        f'<div class="person"><div><img loading="lazy" src="{picture}" alt="photograph">'
        f'<div class="name">{html.escape(caption)}</div></div><div class="crops">{"".join(cells)}</div></div>'
    )


def _figure(path: str, caption: str) -> str:
    caption = html.escape(caption)
    return f'<figure><img loading="lazy" src="{path}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


def _scene(annotations: KeypointAnnotations, image_id: int, number: int, path: Path) -> NDArray[np.uint8]:
    """The image with the skeletons and boxes of all persons; the box of the shown person is thicker."""
    image = read_image(path)[..., ::-1]
    scale = min(1.0, _MAX_SIDE / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    image = np.ascontiguousarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    rows = np.flatnonzero(annotations.image_ids == image_id)
    for row in rows:
        x, y, width, height = np.clip(annotations.boxes[row] * scale, -10_000, 10_000)
        corners = (round(x), round(y)), (round(x + width), round(y + height))
        thickness = 3 if annotations.annotation_ids[row] == number else 1
        cv2.rectangle(image, *corners, _BOX, thickness, cv2.LINE_AA)
    labelled = annotations.labelled[rows].astype(float)
    return draw_skeleton(image, annotations.keypoints[rows] * scale, labelled, annotations.skeleton)


def _crop(item: PoseBatch, skeleton: Skeleton) -> NDArray[np.uint8]:
    """Input of the network, with the joints that are its targets."""
    picture = crop_image(item.image, MEAN, STD)
    height, width = picture.shape[:2]
    points = item.keypoints.numpy() * np.array([width, height])
    return draw_skeleton(picture, points[None], item.weights.numpy().reshape(1, -1), skeleton)


def _save(path: Path, picture: NDArray[np.uint8]) -> str:
    """Write a JPEG and return its path relative to the page."""
    _, content = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])
    path.write_bytes(content.tobytes())
    return f"{path.parent.name}/{path.name}"


def _page(annotations: KeypointAnnotations, figures: list[tuple[str, str]], blocks: list[str]) -> str:
    """The HTML page. All text of the data is escaped, and the page loads no other resources."""
    persons, images = len(annotations.annotation_ids), len(annotations.images)
    return Template(_PAGE.read_text(encoding="utf-8")).substitute(
        title=html.escape(annotations.path.name),
        summary=f"{persons} persons with labelled joints on {images} images; {len(blocks)} of them below.",
        figures="".join(_figure(path, caption) for path, caption in figures),
        persons="\n".join(blocks),
    )
