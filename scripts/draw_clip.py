"""A clip of a drawn person who moves smoothly, with the truth: `python scripts/draw_clip.py clip.avi truth.json --seed 1`.

The truth is a COCO annotation file whose image_id is the frame's number, so it also serves as `boxes=` of the predict command.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from distilpose.data.synthetic.clip import draw_clip
from distilpose.errors import DistilPoseError
from distilpose.files import write_json
from distilpose.inference.writing import video_beside


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Draw a clip of a person who moves smoothly, with its true joints.")
    parser.add_argument("video", type=Path, help="video to write (.avi or .mp4)")
    parser.add_argument("truth", type=Path, help="COCO annotation file to write")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--fps", type=float, default=25.0)
    parser.add_argument("--size", type=int, default=128, help="width and height in pixels")
    parser.add_argument("--variety", type=float, default=0.6, help="of poses and clutter, 0 to 1")
    parser.add_argument("--pace", type=float, default=1.0, help="seconds from one pose to the next")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        for path in (given.video, given.truth):
            if path.exists():
                raise DistilPoseError(f"{path} exists and is not overwritten: give another name.")
        rng = np.random.default_rng(given.seed)
        images, truth = draw_clip(rng, given.frames, given.fps, given.size, given.variety, given.pace)
        with video_beside(given.video, given.fps) as video:
            for image in images:
                video.write(image)
        write_json(truth, given.truth)
    except (DistilPoseError, OSError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps({"video": str(given.video), "truth": str(given.truth), "frames": len(truth["images"])}))


if __name__ == "__main__":
    main()
