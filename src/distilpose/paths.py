"""Where the configuration folder lies, and how a result is written without ever leaving half a file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from distilpose.errors import DistilPoseError

_PACKAGE = Path(__file__).resolve().parent

# inside the wheel the folder travels with the package; in a clone it stands at the top
CONFIG_DIR: Path = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parents[1] / "conf"


@contextlib.contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A temporary file in the same folder, renamed to `path` when the block ends well and removed when it does not.

    Args:
        path: the file wanted; missing folders above it are made.

    Raises:
        DistilPoseError: if the folder or the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise DistilPoseError(f"{path} cannot be written ({reason}): choose a folder you may write to.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
