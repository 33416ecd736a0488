"""Checks of a COCO keypoint data set: file format, values, bodies, images, and images that two splits share."""

from __future__ import annotations

from pathlib import Path

from distilpose.curation.checks.anatomy import check_anatomy
from distilpose.curation.checks.findings import Findings
from distilpose.curation.checks.images import Fingerprints, check_images
from distilpose.curation.checks.leakage import check_between, check_within
from distilpose.curation.checks.reading import KeypointSet, read_set
from distilpose.curation.checks.values import check_values


def check_sets(splits: list[tuple[Path, Path]], category: str | None = None) -> Findings:
    """Run all checks on each split and between the splits.

    Args:
        splits: annotation file and image folder of each split.
        category: name or id, if several have keypoints.
    """
    findings = Findings()
    checked: list[tuple[str, KeypointSet, Fingerprints]] = []
    for file, folder in splits:
        findings.split = file.name if [one.name for one, _ in splits].count(file.name) == 1 else str(file)
        findings.facts[findings.split] = {}
        data = read_set(file, folder, findings, category)
        if data is None:
            continue
        check_values(data, findings)
        check_anatomy(data, findings)
        prints = check_images(data, findings)
        check_within(prints, findings)
        checked.append((findings.split, data, prints))
        findings.facts[findings.split] = {
            "images": len(data.names),
            "persons": len(data.ids),
            "persons with labelled joints": int(data.labelled.any(1).sum()),
            "labelled joints": int(data.labelled.sum()),
        }
    check_between(checked, findings)
    return findings
