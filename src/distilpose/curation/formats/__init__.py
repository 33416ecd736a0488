"""Formats that can be converted to COCO, one module each.

To add a format:

1. Write a module here with a function `read(source)`. It returns the persons, with joints in pixels of the image
   (`conversion.source.Person`), and a COCO category: 'keypoints', and 'skeleton', 'flip_pairs' or 'OKS_sigmas' if the
   format has them. It calls `source.skip(reason)` for what it cannot use, and raises `DistilPoseError` if nothing of the
   file can be used. `curation.parsing` reads and validates files; `conversion.regions` builds persons from single points.
2. List it in `FORMATS`.
3. Test it in tests/curation/formats: write a valid set in the format, convert it with the fixture `convert` and compare
   it with the truth; corrupt every field and convert the file with `convert_corrupted`.
"""

from __future__ import annotations

from typing import NamedTuple


class Format(NamedTuple):
    """A format of label files.

    Attributes:
        module: module of this package that reads it.
        suffixes: suffixes of its file; empty if it is a folder.
        options: options of `dataset convert` that apply to it.
    """

    module: str
    suffixes: tuple[str, ...]
    options: tuple[str, ...] = ()


FORMATS = {
    "mpii": Format("mpii", (".mat", ".json")),
    "crowdpose": Format("crowdpose", (".json",), ("category",)),
    "lsp": Format("lsp", (".mat",)),
    "cvat": Format("cvat", (".xml",), ("skeleton", "category", "split", "box-label")),
    "label-studio": Format("label_studio", (".json",), ("skeleton", "category", "box-label", "image-tag")),
    "yolo-pose": Format("yolo", (), ("skeleton", "category", "split")),
}
