"""Draw a clip of a person who moves smoothly, with its true joints: `python scripts/draw_clip.py clip.avi truth.json --seed 1`.

The truth is a COCO annotation file with the frame number as image_id. The predict command also accepts it as `boxes=`.
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
from distilpose.inference.writing import atomic_video


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Draw a clip of a person who moves smoothly, with its true joints.")
    parser.add_argument("video", type=Path, help="video to write (.avi or .mp4)")
    parser.add_argument("truth", type=Path, help="COCO annotation file to write")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--fps", type=float, default=25.0)
    parser.add_argument("--size", type=int, default=128, help="width and height in pixels")
    parser.add_argument("--variety", type=float, default=0.6, help="variety of poses and clutter, 0 to 1")
    parser.add_argument("--pace", type=float, default=1.0, help="seconds from one pose to the next")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    try:
        for path in (args.video, args.truth):
            if path.exists():
                raise DistilPoseError(f"{path} exists and is not overwritten: give another name.")
        rng = np.random.default_rng(args.seed)
        images, truth = draw_clip(rng, args.frames, args.fps, args.size, args.variety, args.pace)
        with atomic_video(args.video, args.fps) as video:
            for image in images:
                video.write(image)
        write_json(truth, args.truth)
    except (DistilPoseError, OSError) as error:
        sys.exit(f"error: {error}")
    print(json.dumps({"video": str(args.video), "truth": str(args.truth), "frames": len(truth["images"])}))


if __name__ == "__main__":
    main()
