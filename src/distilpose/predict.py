"""Poses on photographs: `python -m distilpose.predict checkpoint=FILE source=IMAGE|FOLDER output=FOLDER`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from omegaconf import DictConfig
from rich.progress import track

from distilpose.command import command
from distilpose.data.coco import read_image
from distilpose.errors import DistilPoseError, check_number
from distilpose.evaluation import check_finite, result_rows
from distilpose.files import write_json, written_beside
from distilpose.inference import Predictor, draw_skeleton
from distilpose.inference.drawing import Image
from distilpose.inference.sources import Boxes, find_images, image_ids, read_boxes
from distilpose.models import load_model


@command("predict")
def main(cfg: DictConfig) -> list[dict[str, Any]]:
    """Predict, draw, and write results.json; images that cannot be read are named at the end."""
    output = Path(cfg.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DistilPoseError(f"output={output} is not an empty folder and nothing is overwritten: give a new one.")
    check_number("nms_threshold", cfg.nms_threshold, least=0)
    check_number("batch_size", cfg.batch_size, least=1, whole=True)
    images = find_images(cfg.source)
    ids = image_ids(images)
    boxes: dict[Path, Boxes] | None = None
    if cfg.boxes is not None:
        boxes, ids = read_boxes(cfg.boxes, ids, cfg.category_id, cfg.box_threshold)
    predictor = Predictor(load_model(cfg.checkpoint, cfg.weights_kind), cfg.device, cfg.batch_size, cfg.flip_test)
    model, skeleton = predictor.model, predictor.skeleton
    output.mkdir(parents=True, exist_ok=True)

    rows: list[dict[str, Any]] = []
    failed: list[str] = []
    chosen = [path for path in images if boxes is None or path in boxes]
    try:
        for path in track(chosen, f"{len(chosen)} images"):
            try:
                image = cv2.cvtColor(read_image(path), cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
            except DistilPoseError as error:
                failed.append(str(error))
                continue
            persons = Boxes(None, None) if boxes is None else boxes[path]
            found = predictor(image, persons.boxes, persons.scores, ids[path])
            check_finite(found, cfg.checkpoint)
            own = result_rows(found, skeleton, model.input_size, cfg.category_id, nms_threshold=cfg.nms_threshold)
            rows += [{**row, "file_name": path.name} for row in own]
            joints = np.array([row["keypoints"] for row in own]).reshape(-1, skeleton.num_keypoints, 3)
            drawn = draw_skeleton(image, joints[..., :2], joints[..., 2], skeleton, cfg.draw_threshold)
            write_picture(drawn, picture_place(output, path, images))
    finally:
        write_json(rows, output / "results.json")
    print(f"{len(rows)} persons on {len(chosen) - len(failed)} of {len(images)} images: {output / 'results.json'}")
    if boxes is not None and len(chosen) < len(images):
        print(f"{len(images) - len(chosen)} images have no box in {cfg.boxes} and were passed over.")
    if failed:
        raise DistilPoseError(
            f"{len(failed)} of {len(images)} images could not be read and were passed over, "
            f"the others are in {output}: {' '.join(failed)}"
        )
    return rows


def picture_place(output: Path, image: Path, images: list[Path]) -> Path:
    """NAME.jpg in the output folder; NAME.png.jpg where two images differ only in their ending."""
    alone = sum(other.stem == image.stem for other in images) == 1
    return output / f"{image.stem if alone else image.name}.jpg"


def write_picture(image: Image, path: Path) -> None:
    """Write an RGB image as JPEG, whole or not at all."""
    _, content = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
    with written_beside(path) as temporary:
        temporary.write_bytes(content.tobytes())


if __name__ == "__main__":
    main()
