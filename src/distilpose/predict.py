"""Poses on photographs and in videos: `python -m distilpose.predict checkpoint=FILE source=FOLDER|VIDEO|… output=FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from types import NoneType
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from distilpose.cli.command import command
from distilpose.errors import DistilPoseError, check_flag, check_number
from distilpose.files import remove_parts, write_text
from distilpose.inference import Predictor
from distilpose.inference.following import Follower, GivenBoxes
from distilpose.inference.journal import Journal, digest
from distilpose.inference.photographs import OPENCV_PIXELS, Frame, Photographs
from distilpose.inference.pipeline import Pipeline
from distilpose.inference.smoothing import OneEuroFilter
from distilpose.inference.sources import read_boxes, read_frame_boxes
from distilpose.inference.telling import UNREAD, counted, progress_bar, unread
from distilpose.inference.tracking import Tracker
from distilpose.inference.videos import Video, open_source
from distilpose.inference.writing import (
    RowBuffer,
    drawn,
    picture_places,
    video_beside,
    write_csv,
    write_picture,
    write_rows,
)
from distilpose.models import load_model
from distilpose.models.remote import local_file
from distilpose.runs.checkpoint_settings import run_padding

# what the poses found do not depend on
_FREE = ("output", "resume", "device", "draw", "draw_threshold", "csv", "frames", "max_pixels")
_PATHS = ("checkpoint", "source", "output", "boxes", "calibration", "detector.file")
INTERRUPTED = 130  # exit status, as of any command that Ctrl-C ends


@command("predict")
def main(cfg: DictConfig) -> None:
    """Predict, draw, and write results.json; images that cannot be read are named at the end."""
    _check(cfg)
    output = Path(cfg.output)
    source = open_source(cfg.source, cfg.frames, cfg.max_pixels)
    if source.live and cfg.resume is not None:
        raise DistilPoseError(f"'{cfg.source}' cannot be resumed, what it showed is gone: leave resume out.")
    boxes = _boxes(cfg, source)
    pipeline = _pipeline(cfg, source, boxes)
    skeleton = pipeline.predictor.skeleton
    places = picture_places(output, source.paths) if cfg.draw and isinstance(source, Photographs) else {}
    rows = RowBuffer(output)
    faults: list[str] = []
    seen, stopped = 0, False
    film = (
        video_beside(output / "annotated.mp4", source.fps) if cfg.draw and isinstance(source, Video) else nullcontext()
    )
    try:
        with film as video, progress_bar() as progress:
            known = len(pipeline.journal.rows)
            task = progress.add_task(f"{_kind(source)}s", total=len(source) or None, known=known)
            try:
                for frame, own in pipeline.run(_frames(source, pipeline.journal, places)):
                    rows.add(own)
                    seen += frame.fault is None
                    if frame.fault:
                        faults.append(frame.fault)
                    if cfg.draw and frame.image is not None:
                        picture = drawn(frame.image, own, skeleton, cfg.draw_threshold)
                        if video is not None:
                            video.write(picture)
                        else:
                            write_picture(picture, places[frame.name])
                    progress.advance(task)
            except KeyboardInterrupt:
                stopped = True
    finally:
        for frame, own in pipeline.run(_rest(source, pipeline)):
            rows.add(own)
            seen += frame.fault is None and frame.number in pipeline.journal.rows
        write_rows(rows, output / "results.json")
        if cfg.csv:
            write_csv(rows, skeleton, output / "results.csv")
    (output / UNREAD).unlink(missing_ok=True)  # of an earlier work, whose images may have been mended
    if faults:
        write_text("".join(f"{fault}\n" for fault in faults), output / UNREAD)
    looked_at = f"{seen} of {counted(len(source), _kind(source))}" if len(source) else counted(seen, _kind(source))
    print(f"{counted(len(rows), 'person')} on {looked_at}: {output / 'results.json'}")
    if isinstance(source, Photographs) and source.empty:
        print(f"Passed over, without a box in {cfg.boxes}: {counted(len(source.empty), 'image')}.")
    if boxes.left_out:
        print(
            f"Left out, without a size or wholly outside the {_kind(source)}: {boxes.left_out} of the boxes in {cfg.boxes}."
        )
    _tell_end(cfg, source, faults, stopped)


def _check(cfg: DictConfig) -> None:
    """Refuse settings that are no good; a path such as 2024, which is read as a number, becomes text."""
    for name in _PATHS:
        value = OmegaConf.select(cfg, name, throw_on_missing=name in _PATHS[:3])
        if not isinstance(value, (str, int, float, NoneType)) or isinstance(value, bool):
            raise DistilPoseError(f"{name}={value} must be one path.")
        if value is None and name in _PATHS[:3]:
            raise DistilPoseError(f"{name} is not set: give {name}=…, and see --help for what it takes.")
        if value is not None:
            OmegaConf.update(cfg, name, str(value))
    for name in ("track", "smooth", "draw", "csv"):
        check_flag(name, cfg[name])
    check_number("nms_threshold", cfg.nms_threshold, least=0)
    for name in ("box_threshold", "draw_threshold"):
        check_number(name, cfg[name])
    check_number("category_id", cfg.category_id, whole=True)
    OneEuroFilter(**cfg.smoothing)
    check_number("fps", cfg.fps, above=0)
    check_number("max_pixels", cfg.max_pixels, least=1, most=OPENCV_PIXELS, whole=True)
    if cfg.frames is not None:
        check_number("frames", cfg.frames, least=1, whole=True)
    if cfg.resume not in (None, "auto"):
        raise DistilPoseError(f"resume={cfg.resume} is not known: expected auto, or null to start in a new folder.")
    if cfg.boxes is not None and not cfg.detector._target_.endswith("WholeImage"):
        raise DistilPoseError("Both boxes=FILE and a detector are given: leave one of them out.")


def _boxes(cfg: DictConfig, source: Photographs | Video) -> Follower | GivenBoxes:
    """Where the persons are; images for which the file given has no box are passed over."""
    if cfg.boxes is None:
        return Follower(instantiate(cfg.detector))
    if isinstance(source, Video):
        return GivenBoxes(read_frame_boxes(cfg.boxes, cfg.category_id, cfg.box_threshold))
    found, source.ids = read_boxes(cfg.boxes, source.ids, cfg.category_id, cfg.box_threshold)
    source.empty = frozenset(source.paths) - found.keys()
    return GivenBoxes({source.ids[path]: own for path, own in found.items()})


def _pipeline(cfg: DictConfig, source: Photographs | Video, boxes: Follower | GivenBoxes) -> Pipeline:
    """The model and all around it; the output folder is made last, when nothing else can be wrong."""
    file = local_file(cfg.checkpoint)
    model = load_model(file, cfg.weights_kind)
    padding = run_padding(file) if cfg.padding is None else cfg.padding
    options = {"padding": padding, "calibration": cfg.calibration, "max_pixels": cfg.max_pixels}
    predictor = Predictor(model, cfg.device, cfg.batch_size, cfg.flip_test, **options)
    tracker = Tracker(model.skeleton, **cfg.tracking, smoothing=dict(cfg.smoothing) if cfg.smooth else None)
    follows = isinstance(boxes, Follower) and boxes.detector.every > 1
    if follows and isinstance(source, Photographs):
        raise DistilPoseError(f"detector.every={cfg.detector.every} is for videos: leave it at 1 for images.")
    settings = {**_settings(cfg, source), "checkpoint": digest(file), "padding": padding}
    journal = Journal(Path(cfg.output), settings, cfg.resume == "auto", remember=not source.live)
    remove_parts(cfg.output)
    return Pipeline(
        predictor,
        boxes,
        journal,
        tracker if cfg.track or cfg.smooth else None,
        cfg.fps,
        source.live or follows,
        cfg.category_id,
        cfg.nms_threshold,
        str(cfg.checkpoint),
    )


def _settings(cfg: DictConfig, source: Photographs | Video) -> dict[str, Any]:
    """What the results depend on, with digests in place of files."""
    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    for name in _FREE:
        settings.pop(name)
    detector = settings.pop("detector")
    detector.pop("device", None)
    settings["detector"] = {**detector, "file": digest(detector.get("file"))}
    settings.update({name: digest(cfg[name]) for name in ("boxes", "calibration")})
    if isinstance(source, Photographs):
        settings["source"] = [[path.name, source.ids[path]] for path in source.paths]
    elif Path(str(cfg.source)).is_file():
        settings["source"] = digest(cfg.source)
    return settings


def _frames(source: Photographs | Video, journal: Journal, places: dict[str, Path]) -> Iterator[Frame]:
    """What to look at, in order. An image that is done and drawn is not read again."""
    if isinstance(source, Video):
        return source.frames()

    def done(path: Path) -> bool:
        return source.ids[path] in journal.rows and (path.name not in places or places[path.name].exists())

    return source.frames(done)


def _rest(source: Photographs | Video, pipeline: Pipeline) -> Iterator[Frame]:
    """What an earlier work had found behind the place where this one stopped, without images."""
    known = pipeline.journal.rows
    frames: Iterable[Frame] = source.frames(lambda path: True) if isinstance(source, Photographs) else ()
    if isinstance(source, Video):
        times = {number: rows[0]["time"] for number, rows in known.items() if rows}
        frames = (Frame(number, time=times.get(number, 0.0)) for number in range(max(known, default=-1) + 1))
    left = list(islice(frames, pipeline.place, None))
    last = max((place for place, frame in enumerate(left) if frame.number in known), default=-1)
    return iter(left[: last + 1])


def _kind(source: Photographs | Video) -> str:
    return "image" if isinstance(source, Photographs) else "frame"


def _tell_end(cfg: DictConfig, source: Photographs | Video, faults: list[str], stopped: bool) -> None:
    """What was lost or left, if anything; an error where it was not meant."""
    if isinstance(source, Video):
        for note in source.notes:
            print(note)
        if source.faults and not stopped:
            raise DistilPoseError(" ".join(source.faults))
    if stopped and not source.live:
        print(f"Stopped; what was found is in {cfg.output}, and resume=auto goes on.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    if faults:
        raise DistilPoseError(unread(faults, len(source), cfg.output))


if __name__ == "__main__":
    main()
