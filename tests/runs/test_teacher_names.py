"""The teachers of a run in words."""

from __future__ import annotations

from distilpose.runs.teacher_names import TeacherName, teacher_names


def test_a_teacher_whose_name_is_not_set_is_none():
    """With a loss that needs no teacher, the log said that ??? is not read."""
    module = {"teacher._target_": "distilpose.modules.load_module"}
    vitpose = {"teacher._target_": "distilpose.modules.load_vitpose", "teacher.revision": None}
    assert teacher_names({**vitpose, "teacher.name": "???"}) == teacher_names({**module, "teacher.target": "???"}) == []
    assert teacher_names({**vitpose, "teacher.name": "owner/name"}) == [TeacherName("vitpose", "owner/name")]
