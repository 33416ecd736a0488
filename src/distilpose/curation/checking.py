"""All checks of one or more splits, in order."""

from __future__ import annotations

from pathlib import Path

from distilpose.curation.anatomy import check_anatomy
from distilpose.curation.findings import Findings
from distilpose.curation.images import Fingerprints, Progress, check_images
from distilpose.curation.leakage import check_between, check_within
from distilpose.curation.reading import KeypointSet, read_set
from distilpose.curation.values import check_values
from distilpose.errors import DistilPoseError


def check_sets(
    splits: list[tuple[Path, Path]], progress: Progress = lambda jobs, count: jobs, category: str | None = None
) -> Findings:
    """What is wrong with the splits of a data set, each by itself and between them.

    Args:
        splits: annotation file and image folder of each.
        progress: wraps the loop over images, given their number.
        category: name or id, where several have keypoints.

    Raises:
        DistilPoseError: a file or a folder does not exist.
    """
    for file, folder in splits:
        if not file.is_file():
            wrong = "is a folder" if file.is_dir() else "does not exist"
            raise DistilPoseError(
                f"Annotation file {file} {wrong}: give the file first, then the folder of its images."
            )
        if not folder.is_dir():
            wrong = "is a file" if folder.exists() else "does not exist"
            raise DistilPoseError(f"Image folder {folder} {wrong}: give the folder the file's names are below.")
    findings = Findings()
    read: list[tuple[str, KeypointSet, Fingerprints]] = []
    for file, folder in splits:
        findings.split = file.name if [one.name for one, _ in splits].count(file.name) == 1 else str(file)
        data = read_set(file, folder, findings, category)
        if data is None:
            findings.facts[findings.split] = {}
            continue
        check_values(data, findings)
        check_anatomy(data, findings)
        prints = check_images(data, findings, progress)
        check_within(prints, findings)
        read.append((findings.split, data, prints))
        findings.facts[findings.split] = {
            "images": len(data.names),
            "persons": len(data.ids),
            "persons with labelled joints": int(data.labelled.any(1).sum()),
            "labelled joints": int(data.labelled.sum()),
        }
    check_between(read, findings)
    return findings
