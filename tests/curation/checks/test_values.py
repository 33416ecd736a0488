"""Boxes and persons whose numbers do not fit."""

from __future__ import annotations


def test_boxes_over_the_edge_outside_and_as_corners(sound):
    data = sound()
    data.people[0]["bbox"][2] = 300
    data.people[1]["bbox"][0] = 250
    findings = data.check()
    by_code = {finding.code: finding for finding in findings.entries}
    assert by_code["box-over-edge"].examples == ("1",)
    assert by_code["box-outside"].examples == ("2",)
    assert "box-corners" not in by_code

    data = sound(seed=1)
    for person in data.people:
        x, y, width, height = person["bbox"]
        person["bbox"] = [x, y, x + width, y + height]
    assert "box-corners" in data.check().codes("error")


def test_a_set_without_labels(sound):
    data = sound()
    for person in data.people:
        person.update(keypoints=[0] * 51, num_keypoints=0)
    findings = data.check()
    assert findings.codes("error") == {"no-persons"}
    assert findings.codes("note") == {"person-without-joints"}


def test_what_metrics_leave_out(sound):
    data = sound()
    data.people[0]["id"] = 0
    for person in data.people:
        person["keypoints"][33:39] = [0] * 6  # both hips
        person["num_keypoints"] = 15
    by_code = {finding.code: finding for finding in data.check().entries}
    assert by_code["annotation-id-zero"].examples == ("0",)
    assert (by_code["torso-unlabelled"].severity, by_code["torso-unlabelled"].count) == ("warning", len(data.people))
    assert "image-crowded" not in by_code

    data = sound(seed=1)
    data.people[0]["keypoints"][33:39] = [0] * 6
    data.people[0]["num_keypoints"] = 15
    first = dict(data.people[1])
    data.people.extend(
        {**first, "id": 100 + n, "keypoints": [v + (k % 3 == 0) * n / 10 for k, v in enumerate(first["keypoints"])]}
        for n in range(1, 25)
    )
    by_code = {finding.code: finding for finding in data.check().entries}
    assert (by_code["torso-unlabelled"].severity, by_code["torso-unlabelled"].count) == ("note", 1)
    assert by_code["image-crowded"].count == 1
    assert "more than 20 persons" in by_code["image-crowded"].message
