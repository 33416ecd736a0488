"""Check, browse and convert a keypoint data set before training on it.

python -m distilpose.dataset check FILE IMAGES [--split FILE [IMAGES]] [--output FOLDER]
python -m distilpose.dataset browse FILE IMAGES --output FOLDER
python -m distilpose.dataset convert FORMAT SOURCE --images IMAGES --output FILE
python -m distilpose.dataset sigmas FILE OTHER
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le
from rich.console import Console

from distilpose.cli.command import USER_ERRORS, error_message
from distilpose.cli.failures import is_user_error
from distilpose.cli.process import log_to_stderr, silence_stdout, stdout_is_closed
from distilpose.cli.validate_settings import check as check_setting
from distilpose.curation.formats import FORMATS
from distilpose.errors import DistilPoseError

log = logging.getLogger(__name__)
SIDE = Annotated[int, Ge(16), Le(2048)]
RANGES = {"persons": Annotated[int, Ge(1), Le(10_000)], "input_size": tuple[SIDE, SIDE]}


def check(options: argparse.Namespace) -> int:
    """Report all problems; the exit status is 1 if there is an error."""
    from distilpose.curation.checks import check_sets
    from distilpose.curation.checks.findings import print_findings, write_findings

    splits = [(options.file, options.images)]
    for paths in options.split:
        if len(paths) > 2:
            raise DistilPoseError(f"--split takes an annotation file and its image folder, got {len(paths)} paths.")
        splits.append((paths[0], paths[1] if len(paths) == 2 else options.images))
    findings = check_sets(splits, options.category)
    if options.output is not None:  # before printing, which fails if `head` has closed stdout
        write_findings(findings, options.output)
        log.info("written to %s and check.json", options.output / "check.md")
    print_findings(findings, Console())
    return 1 if findings.count("error") else 0


def browse(options: argparse.Namespace) -> None:
    """Write the gallery."""
    from distilpose.curation.gallery import write_gallery

    count = write_gallery(
        options.file,
        options.images,
        options.output,
        persons=options.persons,
        input_size=tuple(options.input_size),
        category=options.category,
    )
    print(f"{count} persons shown in {options.output / 'index.html'}")


def convert(options: argparse.Namespace) -> None:
    """Read another format and write COCO."""
    from distilpose.curation.conversion import convert_set

    lines = convert_set(
        options.format,
        options.source,
        options.images,
        options.output,
        skeleton=options.skeleton,
        category=options.category,
        split=options.split,
        box_labels=tuple(options.box_label),
        image_tags=tuple(options.image_tag),
    )
    print("\n".join(lines))


def sigmas(options: argparse.Namespace) -> None:
    """Measure OKS sigmas from two labellings of the same persons."""
    from distilpose.curation.sigmas import estimate_sigmas, format_sigmas

    print(format_sigmas(*estimate_sigmas(options.file, options.other, options.category)))


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    log_to_stderr()
    options = build_parser().parse_args(arguments)
    try:
        _check_options(options)
        status = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        status = 128 + signal.SIGINT
    except USER_ERRORS as error:
        if isinstance(error, BrokenPipeError) and stdout_is_closed():
            silence_stdout()
            sys.exit(0)
        if not is_user_error(error):
            raise
        sys.exit(f"error: {error_message(error)}")
    sys.exit(status)


def _check_options(options: argparse.Namespace) -> None:
    """Check ranges, and that nothing is overwritten; argparse checks the rest."""
    for name, annotation in RANGES.items():
        if name in options:
            check_setting("--" + name.replace("_", "-"), getattr(options, name), annotation)
    output = getattr(options, "output", None)
    if output is not None and output.exists():
        raise DistilPoseError(
            f"--output {output} exists and is not overwritten: choose another name or remove it first."
        )


def build_parser() -> argparse.ArgumentParser:
    """Parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m distilpose.dataset", description="Prepare a keypoint data set.")
    commands = parser.add_subparsers(required=True, metavar="check|browse|convert|sigmas")

    def add(run: Any, about: str) -> argparse.ArgumentParser:
        command = commands.add_parser(run.__name__, help=about, description=about)
        command.set_defaults(run=run)
        command.add_argument("--category", help="name or id, if several have keypoints")
        return command

    one = add(check, "report problems that make training fail or the model worse")
    one.add_argument("file", type=Path, help="COCO keypoint file")
    one.add_argument("images", type=Path, help="folder of its images")
    one.add_argument(
        "--split", type=Path, nargs="+", action="append", default=[], metavar="PATH",
        help="annotation file of another split, and its image folder if it is another one; can be repeated",
    )  # fmt: skip
    one.add_argument(
        "--output", type=Path, metavar="FOLDER", help="folder to write check.json and check.md to; must not exist"
    )

    one = add(browse, "write a gallery: skeletons, boxes, crops, statistics")
    one.add_argument("file", type=Path, help="COCO keypoint file")
    one.add_argument("images", type=Path, help="folder of its images")
    one.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder to write; must not exist")
    one.add_argument("--persons", type=int, default=60, help="number of persons to show, 1 to 10,000")
    one.add_argument(
        "--input-size", type=int, nargs=2, default=[256, 192], metavar=("H", "W"), help="pixels of the crops"
    )

    one = add(convert, "read another format and write COCO")
    one.add_argument("format", choices=FORMATS, help="format of the source")
    one.add_argument(
        "source", type=Path, help="labels: a file, a folder (yolo-pose: or its data.yaml), or a .zip of them"
    )
    one.add_argument(
        "--images", type=Path, required=True,
        help="folder of the images; each is searched by its path in the folder, then by its name in all folders below",
    )  # fmt: skip
    one.add_argument("--output", type=Path, required=True, metavar="FILE", help="COCO file to write; must not exist")
    one.add_argument(
        "--skeleton", type=Path, metavar="FILE",
        help="JSON of a COCO category (keypoints, skeleton, flip_pairs, OKS_sigmas), or an annotation file that has one",
    )  # fmt: skip
    one.add_argument("--split", help="yolo-pose: train, val or test of data.yaml; cvat: only images of this subset")
    one.add_argument(
        "--box-label", action="append", default=[], metavar="NAME",
        help="cvat, label-studio: label of the rectangles that are persons' boxes, if there are others; can be repeated",
    )  # fmt: skip
    one.add_argument(
        "--image-tag", action="append", default=[], metavar="NAME=KEY",
        help="label-studio: key in the tasks' data whose image an <Image> tag shows, if tasks have several; can be repeated",
    )  # fmt: skip

    one = add(sigmas, "measure OKS sigmas from persons that were labelled twice")
    one.add_argument("file", type=Path, help="COCO keypoint file")
    one.add_argument("other", type=Path, help="a second labelling of the same persons")
    return parser


if __name__ == "__main__":
    main()
