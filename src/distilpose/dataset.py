"""Look after a data set of keypoints before training on it.

python -m distilpose.dataset check FILE IMAGES [--split FILE [IMAGES]] [--report FOLDER]
python -m distilpose.dataset browse FILE IMAGES --output FOLDER
python -m distilpose.dataset convert FORMAT SOURCE --images IMAGES --output FILE
python -m distilpose.dataset sigmas FILE OTHER
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from distilpose.cli.command import MISTAKES, error_message
from distilpose.cli.process import silence_stdout
from distilpose.errors import DistilPoseError


def check(given: argparse.Namespace) -> int:
    """Tell every fault; 1 if there is an error."""
    from distilpose.curation.checking import check_sets
    from distilpose.curation.findings import print_findings, write_findings

    splits = [(given.file, given.images)]
    for more in given.split:
        if len(more) > 2:
            raise DistilPoseError(f"--split takes an annotation file and its image folder, got {len(more)} paths.")
        splits.append((more[0], more[1] if len(more) == 2 else given.images))
    if given.report is not None:
        _must_be_new(given.report, "--report")
    findings = check_sets(splits, _progress("images"), given.category)
    console = Console()
    if given.report is not None:  # first, as the reader of what is printed may have gone
        write_findings(findings, given.report)
    print_findings(findings, console)
    if given.report is not None:
        console.print(f"written to {given.report / 'check.md'} and check.json", markup=False, highlight=False)
    return 1 if findings.count("error") else 0


def browse(given: argparse.Namespace) -> int:
    """Write the gallery."""
    from distilpose.curation.gallery import write_gallery

    _must_be_new(given.output, "--output")
    shown = write_gallery(
        given.file,
        given.images,
        given.output,
        given.persons,
        tuple(given.input_size),
        given.category,
        _progress("persons"),
    )
    print(f"{shown} persons shown in {given.output / 'index.html'}")
    return 0


def convert(given: argparse.Namespace) -> int:
    """Read another format and write COCO."""
    from distilpose.curation.formats import convert_set

    _must_be_new(given.output, "--output")
    how = (given.skeleton, given.category, given.split, tuple(given.box_label))
    told = convert_set(given.format, given.source, given.images, given.output, *how, _progress("images"))
    print("\n".join(told))
    return 0


def sigmas(given: argparse.Namespace) -> int:
    """Measure OKS sigmas from two labellings of the same persons."""
    from distilpose.curation.sigmas import estimate_sigmas, tell_sigmas

    print(tell_sigmas(*estimate_sigmas(given.file, given.other, given.category)))
    return 0


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    given = _parser().parse_args(arguments)
    try:
        status = given.run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        silence_stdout()
        status = 0
    except MISTAKES as error:
        sys.exit(f"error: {error_message(error)}")
    sys.exit(status)


def _must_be_new(path: Path, option: str) -> None:
    if path.exists():
        raise DistilPoseError(f"{option} {path} exists and is not overwritten: choose another name or remove it first.")


def _progress(what: str) -> Any:
    """A progress bar around a loop, on standard error so that a report can be piped."""

    def wrap(jobs: Iterable[Any], count: int) -> Iterable[Any]:
        return track(jobs, description=what, total=count, console=Console(stderr=True), transient=True)

    return wrap


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m distilpose.dataset", description="Look after a set of keypoints.")
    commands = parser.add_subparsers(required=True, metavar="check|browse|convert|sigmas")

    one = commands.add_parser("check", help="find what a training would trip on, and what makes a poor model")
    one.set_defaults(run=check)
    one.add_argument("file", type=Path, help="COCO keypoint file")
    one.add_argument("images", type=Path, help="folder of its images")
    one.add_argument(
        "--split", type=Path, nargs="+", action="append", default=[], metavar="PATH",
        help="annotation file, and image folder if it is another, of a further split; may be repeated",
    )  # fmt: skip
    one.add_argument("--report", type=Path, metavar="FOLDER", help="write check.json and check.md there")

    one = commands.add_parser("browse", help="write a gallery: skeletons, boxes, crops, statistics")
    one.set_defaults(run=browse)
    one.add_argument("file", type=Path, help="COCO keypoint file")
    one.add_argument("images", type=Path, help="folder of its images")
    one.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder to write; must not exist")
    one.add_argument("--persons", type=int, default=60, help="how many to show")
    one.add_argument("--input-size", type=int, nargs=2, default=[256, 192], metavar=("H", "W"), help="of the crops")

    one = commands.add_parser("convert", help="read another format and write COCO")
    one.set_defaults(run=convert)
    names = ("mpii", "crowdpose", "lsp", "cvat", "label-studio", "yolo-pose")
    one.add_argument("format", choices=names, help="of the source")
    one.add_argument("source", type=Path, help="the labels: a file, a folder (yolo-pose), or a .zip of them")
    one.add_argument(
        "--images", type=Path, required=True,
        help="folder of the images; each is looked for by its path there, then by its name in any folder below",
    )  # fmt: skip
    one.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="annotation file to write; must not exist"
    )
    one.add_argument(
        "--skeleton", type=Path, metavar="FILE",
        help="JSON of a COCO category (keypoints, skeleton, flip_pairs, OKS_sigmas), or an annotation file that has one",
    )  # fmt: skip
    one.add_argument("--split", help="yolo-pose: train, val or test of data.yaml; cvat: only images of this subset")
    one.add_argument(
        "--box-label", action="append", default=[], metavar="NAME",
        help="cvat, label-studio: label of the rectangles that are persons' boxes, where others are drawn; may be repeated",
    )  # fmt: skip

    one = commands.add_parser("sigmas", help="measure OKS sigmas from persons that two people labelled")
    one.set_defaults(run=sigmas)
    one.add_argument("file", type=Path, help="COCO keypoint file")
    one.add_argument("other", type=Path, help="the same persons, labelled again")

    for one in commands.choices.values():
        one.add_argument("--category", help="name or id, where several have keypoints")
    return parser


if __name__ == "__main__":
    main()
