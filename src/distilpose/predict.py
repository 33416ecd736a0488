"""Poses on photographs and in videos: `python -m distilpose.predict checkpoint=FILE source=FOLDER|VIDEO|… output=FOLDER`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from distilpose.command import command
from distilpose.errors import DistilPoseError, check_flag, check_number
from distilpose.files import remove_parts, write_json
from distilpose.inference import Predictor
from distilpose.inference.following import Follower, GivenBoxes
from distilpose.inference.journal import Journal, digest
from distilpose.inference.photographs import Frame, Photographs
from distilpose.inference.pipeline import Pipeline, Row
from distilpose.inference.sources import read_boxes, read_frame_boxes
from distilpose.inference.tracking import Tracker
from distilpose.inference.videos import Video, open_source
from distilpose.inference.writing import drawn, picture_places, video_beside, write_csv, write_picture
from distilpose.models import load_model

# what the results do not depend on
_FREE = ("output", "resume", "device", "draw", "csv", "draw_threshold", "frames")
INTERRUPTED = 130  # exit status, as of any command that Ctrl-C ends


@command("predict")
def main(cfg: DictConfig) -> list[Row]:
    """Predict, draw, and write results.json; images that cannot be read are named at the end."""
    _check(cfg)
    output = Path(cfg.output)
    source = open_source(cfg.source, cfg.frames, cfg.max_pixels)
    if source.live and cfg.resume is not None:
        raise DistilPoseError(f"'{cfg.source}' cannot be resumed, what it showed is gone: leave resume out.")
    boxes, without = _boxes(cfg, source)
    pipeline = _pipeline(cfg, source, boxes)
    skeleton = pipeline.predictor.skeleton
    places = picture_places(output, source.everything) if cfg.draw and isinstance(source, Photographs) else {}
    rows: list[Row] = []
    faults: list[str] = []
    seen, stopped = 0, False
    film = (
        video_beside(output / "annotated.mp4", source.fps) if cfg.draw and isinstance(source, Video) else nullcontext()
    )
    try:
        with film as video, _progress() as progress:
            task = progress.add_task(f"{len(source) or ''} {_kind(source)}".strip(), total=len(source) or None)
            try:
                for frame, own in pipeline.run(_readable(source, pipeline.journal, places, faults)):
                    rows += own
                    seen += 1
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
        write_json(rows, output / "results.json")
        if cfg.csv:
            write_csv(rows, skeleton, output / "results.csv")
    of = f" of {len(source) + without}" if len(source) else ""
    print(f"{len(rows)} persons on {seen}{of} {_kind(source)}: {output / 'results.json'}")
    if without:
        print(f"{without} images have no box in {cfg.boxes} and were passed over.")
    _tell_end(cfg, source, faults, stopped)
    return rows


def _check(cfg: DictConfig) -> None:
    """Refuse settings that are no good."""
    for name in ("track", "smooth", "draw", "csv"):
        check_flag(name, cfg[name])
    check_number("nms_threshold", cfg.nms_threshold, least=0)
    check_number("fps", cfg.fps, above=0)
    check_number("max_pixels", cfg.max_pixels, least=1, whole=True)
    if cfg.frames is not None:
        check_number("frames", cfg.frames, least=1, whole=True)
    if cfg.resume not in (None, "auto"):
        raise DistilPoseError(f"resume={cfg.resume} is not known: expected auto, or null to start in a new folder.")
    if cfg.boxes is not None and not cfg.detector._target_.endswith("WholeImage"):
        raise DistilPoseError("Both boxes=FILE and a detector are given: leave one of them out.")


def _boxes(cfg: DictConfig, source: Photographs | Video) -> tuple[Follower | GivenBoxes, int]:
    """Where the persons are, and how many images are passed over because the file given has no box for them."""
    if cfg.boxes is None:
        return Follower(instantiate(cfg.detector)), 0
    if isinstance(source, Video):
        return GivenBoxes(read_frame_boxes(cfg.boxes, cfg.category_id, cfg.box_threshold)), 0
    found, source.ids = read_boxes(cfg.boxes, source.ids, cfg.category_id, cfg.box_threshold)
    source.paths = [path for path in source.paths if path in found]
    boxes = GivenBoxes({source.ids[path]: own for path, own in found.items()})
    return boxes, len(source.everything) - len(source.paths)


def _pipeline(cfg: DictConfig, source: Photographs | Video, boxes: Follower | GivenBoxes) -> Pipeline:
    """The model and all around it; the output folder is made last, when nothing else can be wrong."""
    model = load_model(cfg.checkpoint, cfg.weights_kind)
    options = {"calibration": cfg.calibration, "max_pixels": cfg.max_pixels}
    predictor = Predictor(model, cfg.device, cfg.batch_size, cfg.flip_test, **options)
    tracker = Tracker(model.skeleton, **cfg.tracking, smoothing=dict(cfg.smoothing) if cfg.smooth else None)
    follows = isinstance(boxes, Follower) and boxes.detector.every > 1
    if follows and isinstance(source, Photographs):
        raise DistilPoseError(f"detector.every={cfg.detector.every} is for videos: leave it at 1 for images.")
    journal = Journal(Path(cfg.output), _settings(cfg, source), cfg.resume == "auto")
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
    settings.update({name: digest(cfg[name]) for name in ("checkpoint", "boxes", "calibration")})
    if isinstance(source, Photographs):
        settings["source"] = [[path.name, source.ids[path]] for path in source.paths]
    elif not source.live:
        settings["source"] = digest(cfg.source)
    return settings


def _readable(
    source: Photographs | Video, journal: Journal, places: dict[str, Path], faults: list[str]
) -> Iterator[Frame]:
    """What to look at, in order. An image that is done and drawn is not read again; what cannot be read goes to `faults`."""
    if isinstance(source, Video):
        yield from source.frames()
        return

    def done(path: Path) -> bool:
        return source.ids[path] in journal.rows and (path.name not in places or places[path.name].exists())

    for frame in source.frames(done):
        if frame.fault is None:
            yield frame
        else:
            faults.append(frame.fault)


def _kind(source: Photographs | Video) -> str:
    return "images" if isinstance(source, Photographs) else "frames"


class _Speed(ProgressColumn):
    """Frames a second."""

    def render(self, task: Task) -> Text:
        """The speed of late."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn()
    )


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
        raise DistilPoseError(
            f"{len(faults)} of {len(source)} images could not be read and were passed over, "
            f"the others are in {cfg.output}: {' '.join(faults)}"
        )


if __name__ == "__main__":
    main()
