"""The error of this package, and checks of single values."""

from __future__ import annotations

import pytest

from distilpose.errors import DistilPoseError, check_number, check_size, first_line


@pytest.mark.parametrize(
    ("value", "bounds", "told"),
    [
        (0, {"least": 1, "whole": True}, "a.b=0 must be a whole number of at least 1."),
        (1.5, {"least": 1, "whole": True}, "a.b=1.5 must be a whole number of at least 1."),
        (True, {"least": 0, "whole": True}, "a.b=True must be a whole number of at least 0."),
        ("x", {"least": 0}, "a.b=x must be a number of at least 0."),
        (None, {"above": 0}, "a.b=None must be a number above 0."),
        (0, {"above": 0}, "a.b=0 must be a number above 0."),
        (float("nan"), {}, "a.b=nan must be a number."),
        (10**400, {"above": 0}, f"a.b={10**400} must be a number above 0."),
        (9, {"least": 0, "most": 5}, "a.b=9 must be a number of at least 0 and of at most 5."),
    ],
)
def test_numbers_out_of_range(value, bounds, told):
    with pytest.raises(DistilPoseError) as error:
        check_number("a.b", value, **bounds)
    assert str(error.value) == told


def test_numbers_in_range():
    check_number("a", 1, least=1, whole=True)
    check_number("a", 0.5, above=0, most=0.5)
    check_number("a", 10**9)


@pytest.mark.parametrize("value", [256, "64x48", [64], [64, 0], [64.0, 48.0], None])
def test_sizes(value):
    assert check_size("size", [64, 48]) == (64, 48)
    with pytest.raises(DistilPoseError, match="must be two positive whole numbers, height first"):
        check_size("size", value)


def test_the_error_is_a_plain_value_error():
    assert DistilPoseError.__bases__ == (ValueError,)


def test_the_first_line_of_a_librarys_message():
    assert first_line(ValueError("refused\nand how to go on unsafely")) == "refused"
    assert first_line(OSError()) == "OSError"
