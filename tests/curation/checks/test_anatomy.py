"""Bones and sides that no person has."""

from __future__ import annotations

from annotated import put, swap


def test_a_bone_of_another_person_is_found(sound):
    data = sound()
    put(data.people[4], 0, 6, 155)  # the nose, far from the eyes
    data.people[4]["bbox"] = [1, 1, 200, 158]
    (one,) = [finding for finding in data.check().entries if finding.code == "bone-long"]
    assert one.examples == ("5",)


def test_many_persons_whose_sides_disagree_are_a_warning(sound):
    data = sound()
    for person in data.people[:30]:
        swap(person, 11, 12)
    (one,) = [finding for finding in data.check().entries if finding.code == "sides-disagree"]
    assert (one.severity, one.count) == ("warning", 30)


def test_some_mirrored_persons_are_a_warning(sound):
    data = sound()
    for person in data.people[:30]:
        for left in range(1, 17, 2):
            swap(person, left, left + 1)
    (one,) = data.check().entries
    assert (one.code, one.severity, one.count) == ("sides-mirrored", "warning", 30)
