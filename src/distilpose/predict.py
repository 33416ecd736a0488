"""Poses on images and in videos: `python -m distilpose.predict checkpoint=FILE source=FOLDER|VIDEO|… output=FOLDER`."""

from __future__ import annotations

import logging
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Unit
from hydra.utils import instantiate
from omegaconf import DictConfig

from distilpose.cli.command import command
from distilpose.cli.validate_settings import Group
from distilpose.errors import DistilPoseError
from distilpose.evaluation import FlipTest
from distilpose.files import remove_parts, write_text
from distilpose.inference import Predictor
from distilpose.inference.box_sources import BoxSource, DetectedBoxes, FileBoxes
from distilpose.inference.boxes import read_boxes
from distilpose.inference.frame_boxes import read_frame_boxes
from distilpose.inference.images import OPENCV_PIXELS, ImageFiles
from distilpose.inference.pipeline import RowPipeline
from distilpose.inference.progress import UNREAD, plural, progress_bar, unread_summary
from distilpose.inference.results_journal import ResultsJournal, compared_settings, digest
from distilpose.inference.smoothing import OneEuroFilter
from distilpose.inference.tracking import Tracker, TrackingSettings
from distilpose.inference.video_writing import atomic_video, drawing_rate
from distilpose.inference.videos import Video, open_source
from distilpose.inference.writing import RowBuffer, draw_rows, drawing_paths, write_csv, write_rows
from distilpose.models import load_model
from distilpose.models.remote import local_file
from distilpose.runs.run_of_checkpoint import run_padding
from distilpose.visualization.drawing import write_picture

JPEG_QUALITY = 92  # of the drawn images, 0 to 100
DRAWN_VIDEO = "annotated.mp4"
INTERRUPTED = 130  # exit status of any command that Ctrl-C ends

log = logging.getLogger(__name__)


class PredictSettings:
    """Settings of `predict`.

    Attributes:
        checkpoint: a model written by this package (.ckpt or .safetensors), a shared folder, or a name on the Hugging Face hub.
        weights_kind: weights of a checkpoint whose training averaged them (callbacks=ema).
        source: an image, a folder of images, a video, a camera (its number, or webcam), or a stream (rtsp://, http://, …).
        output: new or empty folder for results.json, the drawn images or video, and the journal.
        resume: auto resumes an interrupted prediction with the same settings; null starts in a new folder.
        frames: stop a video, camera or stream after this many frames; null reads to the end, or until Ctrl-C.
        boxes: COCO annotation file or a list of {image_id or file_name, bbox, score}, used instead of a detector; for a
            video the image_id is the number of the frame, from 0.
        first_frame: number of a video's first frame, or of the first image, where the box file counts them; null is 0 for a
            video and 1 for images, whose file names decide first.
        category_id: category of persons in the box file and in the results.
        box_threshold: boxes with a score below this are skipped.
        flip_test: average each crop with its mirror image; released does it like the published code.
        padding: factor on a person's box; null takes the value of the run that trained the model, else 1.25.
        nms_threshold: of two persons in an image whose OKS is above this, the better one is kept.
        calibration: file that evaluate wrote by calibration_output=FILE; scores of joints become expected similarities (OKS).
        track: track persons from frame to frame; the images of a folder are frames in the order of their names.
        smooth: smooth the joints of each track by a One-Euro filter; switches tracking on.
        fps: frame rate of the images of a folder.
        draw: write images, or a video, with the skeletons drawn.
        csv: write results.csv beside results.json.
        draw_threshold: joints with a score above this are drawn.
        max_pixels: images and frames of more pixels are not decoded.
        batch_size: crops in a forward pass.
        device: auto, cpu, cuda, cuda:1, ….
    """

    checkpoint: Path
    weights_kind: Literal["averaged", "raw"]
    source: Path | str | int
    output: Path | int
    resume: Literal["auto"] | None
    frames: Annotated[int, Ge(1)] | None
    boxes: Path | None
    first_frame: int | None
    category_id: int
    box_threshold: Annotated[float, Ge(0), Le(1)]
    flip_test: FlipTest
    padding: Annotated[float, Gt(0)] | None
    nms_threshold: Annotated[float, Ge(0)]
    calibration: Path | None
    track: bool
    smooth: bool
    fps: Annotated[float, Gt(0), Unit("frames a second")]
    tracking: TrackingSettings
    smoothing: OneEuroFilter
    draw: bool
    csv: bool
    draw_threshold: Annotated[float, Ge(0), Le(1)]
    max_pixels: Annotated[int, Ge(1), Le(OPENCV_PIXELS)]
    batch_size: Annotated[int, Ge(1)]
    device: str
    detector: Group


@dataclass
class Outcome:
    """Result of a prediction.

    Attributes:
        rows: rows in the order of the frames.
        read: number of images or frames that could be read.
        faults: error messages of the others.
        interrupted: whether Ctrl-C stopped the prediction.
    """

    rows: RowBuffer
    read: int = 0
    faults: list[str] = field(default_factory=list)
    interrupted: bool = False


@command("predict", PredictSettings)
def main(cfg: DictConfig) -> None:
    """Predict, draw, and write results.json; images that cannot be read are listed at the end."""
    output = Path(str(cfg.output))
    source, boxes = open_source_and_boxes(cfg)
    pipeline = make_pipeline(cfg, source, boxes, output)
    outcome = run(cfg, source, pipeline, output)
    write_rows(outcome.rows, output / "results.json")
    if cfg.csv:
        write_csv(outcome.rows, pipeline.predictor.skeleton, output / "results.csv")
    report(cfg, source, boxes, outcome, output)


def open_source_and_boxes(cfg: DictConfig) -> tuple[ImageFiles | Video, BoxSource]:
    """The source, and the detector or the box file; images without a box in the file are skipped."""
    source = open_source(cfg.source, cfg.frames, cfg.max_pixels)
    if cfg.boxes is None:
        return source, DetectedBoxes(instantiate(cfg.detector))
    if not cfg.detector._target_.endswith("WholeImage"):
        raise DistilPoseError(f"boxes={cfg.boxes} and a detector are both given: remove boxes=… or detector=….")
    if isinstance(source, Video):
        about = (cfg.category_id, cfg.box_threshold, cfg.first_frame or 0, source.source, source.size)
        frames = read_frame_boxes(cfg.boxes, *about)
        return source, FileBoxes(frames)
    boxes, ids = read_boxes(cfg.boxes, source.ids, cfg.category_id, cfg.box_threshold, cfg.first_frame)
    images = ImageFiles(source.paths, cfg.max_pixels, ids, empty=set(source.paths) - boxes.keys())
    return images, FileBoxes({ids[path]: image_boxes for path, image_boxes in boxes.items()})


def make_pipeline(cfg: DictConfig, source: ImageFiles | Video, boxes: BoxSource, output: Path) -> RowPipeline:
    """The model, the tracker and the journal. The output folder is created last, when nothing else can fail."""
    if source.live and cfg.resume is not None:
        raise DistilPoseError(f"source={cfg.source} is live and cannot be resumed: remove resume={cfg.resume}.")
    if boxes.needs_poses and isinstance(source, ImageFiles):
        raise DistilPoseError(f"detector.every={cfg.detector.every} needs a video: set detector.every=1 for images.")
    file = local_file(cfg.checkpoint)
    model = load_model(file, cfg.weights_kind)
    padding = run_padding(file, cfg.padding)
    options = {"padding": padding, "max_pixels": cfg.max_pixels, "calibration": cfg.calibration}
    predictor = Predictor(model, cfg.device, cfg.batch_size, cfg.flip_test, **options)
    tracker = Tracker(model.skeleton, **cfg.tracking, smoothing=dict(cfg.smoothing) if cfg.smooth else None)
    settings = {**compared_settings(cfg, source), "checkpoint": digest(file), "padding": padding}
    journal = ResultsJournal(output, settings, resume=cfg.resume == "auto", remember=not source.live)
    remove_parts(output)
    return RowPipeline(
        predictor,
        boxes,
        journal,
        tracker=tracker if cfg.track or cfg.smooth else None,
        fps=cfg.fps,
        one_by_one=source.live,
        category_id=cfg.category_id,
        nms_threshold=cfg.nms_threshold,
        source=str(cfg.checkpoint),
    )


def run(cfg: DictConfig, source: ImageFiles | Video, pipeline: RowPipeline, output: Path) -> Outcome:
    """Find and draw the persons on all frames, or until Ctrl-C; the rows are kept in the journal."""
    outcome, journal, skeleton = Outcome(RowBuffer(output)), pipeline.journal, pipeline.predictor.skeleton
    paths = drawing_paths(output, source.paths) if cfg.draw and isinstance(source, ImageFiles) else {}
    fps = drawing_rate(source.source, source.fps) if isinstance(source, Video) and cfg.draw else None
    drawing = nullcontext() if fps is None else atomic_video(output / DRAWN_VIDEO, fps)
    with drawing as video, progress_bar() as progress:
        task = progress.add_task(f"{source.noun}s", total=len(source) or None, known=len(journal.rows))
        try:
            for frame, rows in pipeline.run(pipeline.frames_to_read(source, paths)):
                outcome.rows.add(rows)
                outcome.read += frame.fault is None
                outcome.faults += [frame.fault] if frame.fault else []
                if cfg.draw and frame.image is not None:
                    image = draw_rows(frame.image, rows, skeleton, cfg.draw_threshold)
                    if video is not None:
                        video.write(image, frame.time)
                    else:
                        write_picture(paths[frame.name], image, JPEG_QUALITY)
                progress.advance(task)
            if isinstance(source, Video):
                progress.update(task, total=pipeline.position)  # the file may state an estimate
        except KeyboardInterrupt:
            outcome.interrupted = True
    for note in video.notes(output / DRAWN_VIDEO) if video is not None else ():
        log.info(note)
    # an earlier start may have got further than this one
    for frame, rows in pipeline.run(pipeline.known_frames(source)):
        outcome.rows.add(rows)
        outcome.read += frame.number in journal.rows
    return outcome


def report(cfg: DictConfig, source: ImageFiles | Video, boxes: BoxSource, outcome: Outcome, output: Path) -> None:
    """Print the number of persons, and raise an error if images or frames could not be read."""
    faults, total, noun = outcome.faults, len(source), source.noun
    (output / UNREAD).unlink(missing_ok=True)  # an earlier start may have written it
    if faults:
        write_text("".join(f"{fault}\n" for fault in faults), output / UNREAD)
    # the number of frames that a video states may be an estimate
    read = f"{outcome.read} of {plural(total, noun)}" if isinstance(source, ImageFiles) else plural(outcome.read, noun)
    print(f"{plural(len(outcome.rows), 'person')} on {read}: {output / 'results.json'}")
    if isinstance(source, ImageFiles) and source.empty:
        log.info(f"Skipped {plural(len(source.empty), 'image')} without a box in {cfg.boxes}.")
    if isinstance(source, ImageFiles) and source.several:
        log.info(f"{plural(source.several, 'file')} hold several pictures or pages: only the first of each is read.")
    if boxes.dropped:
        origin = f"in {cfg.boxes}" if cfg.boxes is not None else "of the detector"
        log.info(f"Dropped {boxes.dropped} of the boxes {origin}: they have no size or lie outside the {noun}.")
    if isinstance(boxes, FileBoxes) and (doubt := boxes.doubt()):
        log.warning(f"{cfg.boxes}: {doubt}")
    if isinstance(source, Video):
        ended = not outcome.interrupted and outcome.read != source.max_frames
        if ended and isinstance(boxes, FileBoxes) and (unused := boxes.unused(outcome.read)):
            log.warning(f"{cfg.boxes}: {unused}")
        for note in source.notes:
            log.info(note)
        if source.faults and not outcome.interrupted:
            raise DistilPoseError(" ".join(source.faults))
    if outcome.interrupted and not source.live:
        log.warning(f"Interrupted: {output} has the results so far; resume=auto continues.")
        sys.exit(INTERRUPTED)
    if faults:
        raise DistilPoseError(unread_summary(faults, total, output))


if __name__ == "__main__":
    main()
