from __future__ import annotations

from distilpose.errors import DistilPoseError, first_line


def test_the_error_is_a_plain_value_error():
    assert DistilPoseError.__bases__ == (ValueError,)


def test_the_first_line_of_a_librarys_message():
    assert first_line(ValueError("rejected\nand how to do it unsafely")) == "rejected"
    assert first_line(OSError()) == "OSError"
