"""Synthetic people written as a folder in COCO keypoint format, with the specification it was drawn from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from annotated_types import Ge
from rich.progress import track

from distilpose.data.synthetic.scene import draw_scene
from distilpose.errors import DistilPoseError
from distilpose.skeleton import COCO

FORMAT = 1  # increment it whenever the same parameters draw other images
SPLITS = ("train", "val")
ImageSide = Annotated[int, Ge(48)]
Seed = Annotated[int, Ge(0)]


@dataclass(frozen=True)
class SyntheticSpec:
    """Parameters of a synthetic set. They decide every pixel.

    Attributes:
        num_train: training images; with at most three persons an image has 1.6 on average.
        num_val: validation images, drawn from another random stream.
        image_size: width and height of an image in pixels, at least 48.
        max_persons: largest number of persons in an image; the smallest is one.
        variety: variety of poses, views and clutter, 0 to 1. A small network learns a set of less variety sooner.
        drawing_seed: seed of the images.
    """

    num_train: int = 2500
    num_val: int = 300
    image_size: int = 160
    max_persons: int = 3
    variety: float = 1.0
    drawing_seed: int = 0

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits of the parameters and of `FORMAT`."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def write_synthetic(root: str | Path, spec: SyntheticSpec, workers: int | None = None) -> Path:
    """Make sure that `root` holds the set of `spec`: draw it if the folder is missing or empty.

    The set is drawn under a temporary name and renamed when it is complete, so `root` never holds a part of a set. If
    several processes draw at once, all use the folder of the first to finish.

    Args:
        root: the folder: `annotations/person_keypoints_{train,val}.json`, `train/`, `val/` and `spec.json`.
        spec: what to draw.
        workers: number of processes, by default one per core; the result does not depend on it.

    Raises:
        DistilPoseError: `root` holds something else.
    """
    root = Path(root)
    if _holds(root, spec):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        _draw_all(draft, spec, workers or _num_cores())
        draft.chmod(0o755)
        try:
            os.rename(draft, root)
        except OSError:
            if not _holds(root, spec):  # else another process was faster, and its folder is used
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return root


def _holds(root: Path, spec: SyntheticSpec) -> bool:
    """Whether the folder holds this set; False if it is missing or empty.

    Raises:
        DistilPoseError: it holds anything else.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        content = json.loads((root / "spec.json").read_text())
        recorded = {"format": content["format"], **content["parameters"]}
    except (OSError, ValueError, KeyError, TypeError):
        problem = "is not a synthetic set (it has no readable spec.json)"
    else:
        expected = {"format": FORMAT, **asdict(spec)}
        differing = [
            f"{name} {recorded.get(name)} instead of {expected.get(name)}"
            for name in sorted(expected.keys() | recorded.keys())
            if recorded.get(name) != expected.get(name)
        ]
        if not differing:
            return True
        problem = f"was drawn with other parameters ({', '.join(differing)})"
    raise DistilPoseError(
        f"{root} {problem}: give another data.root, or data.root=null for a folder named after the parameters."
    )


def _draw_all(folder: Path, spec: SyntheticSpec, workers: int) -> None:
    (folder / "annotations").mkdir()
    jobs = [
        (split, number) for split in SPLITS for number in range(spec.num_train if split == "train" else spec.num_val)
    ]
    for split in SPLITS:
        (folder / split).mkdir()
    results: dict[str, list[tuple[dict[str, Any], list[dict[str, Any]]]]] = {split: [] for split in SPLITS}
    drawn = _run(partial(_draw_one, str(folder), spec), jobs, workers)
    for (split, _), result in zip(jobs, track(drawn, "Drawing people", total=len(jobs), transient=True), strict=True):
        results[split].append(result)

    for split, pictures in results.items():
        annotations = list(chain.from_iterable(persons for _, persons in pictures))
        for number, annotation in enumerate(annotations, start=1):
            annotation["id"] = number
        content = {
            "info": {"description": f"Synthetic people {spec.digest}, {split}"},
            "images": [image for image, _ in pictures],
            "annotations": annotations,
            "categories": [_category()],
        }
        (folder / "annotations" / f"person_keypoints_{split}.json").write_text(json.dumps(content))
    versions = {"numpy": np.__version__, "opencv": cv2.__version__}
    record = {"format": FORMAT, "digest": spec.digest, "parameters": asdict(spec), "made_with": versions}
    (folder / "spec.json").write_text(json.dumps(record, indent=2) + "\n")


def _run(draw: partial, jobs: list[tuple[str, int]], workers: int) -> Iterator[Any]:
    """Results in the order of the jobs, from this process or from several."""
    if workers < 2 or len(jobs) < 64:
        yield from map(draw, jobs)
        return
    # OpenCV's own threads would compete with the processes. 0 keeps the thread pool of the parent; 1 would wait in a
    # forked process for threads that were not forked, forever
    with ProcessPoolExecutor(workers, initializer=cv2.setNumThreads, initargs=(0,)) as pool:
        try:
            yield from pool.map(draw, jobs, chunksize=16)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _draw_one(folder: str, spec: SyntheticSpec, job: tuple[str, int]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Draw and save one image. Its random stream depends on its number only, not on the other images."""
    split, number = job
    rng = np.random.default_rng((spec.drawing_seed, SPLITS.index(split), number))
    image, persons = draw_scene(rng, spec.image_size, spec.max_persons, spec.variety)
    image_id = number + 1
    name = f"{image_id:012d}.jpg"
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(70, 97))]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
    Path(folder, split, name).write_bytes(encoded.tobytes())
    for person in persons:
        person.update(image_id=image_id, category_id=1)
    return {"id": image_id, "file_name": name, "width": spec.image_size, "height": spec.image_size}, persons


def _category() -> dict[str, Any]:
    """COCO's person category: 17 names, limbs counted from 1."""
    limbs = [[a + 1, b + 1] for a, b in COCO.limbs]
    return {"id": 1, "name": "person", "supercategory": "person", "keypoints": list(COCO.names), "skeleton": limbs}


def _num_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
