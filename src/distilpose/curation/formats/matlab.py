"""MATLAB files, read by scipy without running anything in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scipy.io import loadmat

from distilpose.errors import DistilPoseError


def read_mat(path: Path, name: str) -> Any:
    """The variable of that name; its structures as objects with attributes.

    Raises:
        DistilPoseError: it is no MATLAB file that scipy reads (up to version 7), or has no such variable.
    """
    try:
        content = loadmat(path, struct_as_record=False, squeeze_me=False, variable_names=[name])
    except NotImplementedError:
        raise DistilPoseError(f"{path} is a MATLAB 7.3 file: save it by `save -v7` in MATLAB or Octave.") from None
    except Exception as error:  # damaged files make scipy's reader fail in any way
        raise DistilPoseError(f"{path} is no MATLAB file that can be read ({type(error).__name__}).") from None
    if name not in content:
        raise DistilPoseError(f"{path} has no variable {name!r}: give the file of the official release.")
    return content[name]
