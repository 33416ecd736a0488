"""Tells mistakes of the user from failures of the machine, and describes the failures whose cause is known.

A mistake is one sentence. A failure keeps its stack trace in crash.log, in the run's folder, and is one sentence that names it.
Anything else is a defect of this package, whose trace is printed.
"""

from __future__ import annotations

import errno
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from distilpose.errors import NOT_THE_PATH, TOO_MANY_FILES, DistilPoseError

# a path given by the user is missing, of the wrong kind, or may not be used
PATHS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
# starts of torch's messages about memory without an exception type of their own: CPU, CUDA outside its allocator, MPS
MEMORY = re.compile(
    r"(\[enforce fail at alloc_cpu\.cpp.*DefaultCPUAllocator|CUDA error: out of memory|MPS backend out of memory)"
)
CRASH_LOG = "crash.log"
WORKER_TRACE = "Original Traceback (most recent call last)"


def is_user_error(error: BaseException) -> bool:
    """Whether an error is a mistake of the user as far as is known, so that one sentence about it is enough."""
    if isinstance(error, OSError) and not isinstance(error, CompactHydraException):  # a missing configuration is both
        return _is_about_a_path(error)
    if isinstance(error, InstantiationException):
        chain = list(causes(error))[1:]
        # the causes of a DistilPoseError are explained by it, such as a download that failed
        own = next((number for number, cause in enumerate(chain) if isinstance(cause, DistilPoseError)), len(chain))
        return not any(_is_failure(cause) for cause in chain[:own]) and not any(map(is_out_of_memory, chain[own:]))
    return isinstance(error, (DistilPoseError, CompactHydraException, OmegaConfBaseException))


def _is_about_a_path(error: OSError) -> bool:
    if error.errno in FULL_DISK:
        return True
    if error.filename is None:
        return WORKER_TRACE in str(error) and isinstance(error, PATHS)  # a DataLoader worker leaves only the text
    return error.errno not in NOT_THE_PATH and not isinstance(error, (ConnectionError, TimeoutError))


def _is_failure(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return not _is_about_a_path(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and not isinstance(error, DistilPoseError)
    )


def run_folder() -> Path | None:
    """The folder that Hydra made for the run; None for a command that runs in the current folder."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    return folder if folder.is_dir() and folder != Path.cwd() else None


def write_crash_log() -> Path | None:
    """Add the stack trace of the current exception to crash.log in the run's folder; None if there is none to write to."""
    if (folder := run_folder()) is not None:
        with suppress(OSError), (folder / CRASH_LOG).open("a") as file:
            file.write(traceback.format_exc() + "\n")
            return folder / CRASH_LOG
    return None


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its chain of causes."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def failure_message(error: BaseException, cfg: DictConfig, trace: Path | None) -> str | None:
    """One sentence about a failure whose cause is known; None for others, and where no file holds the trace.

    Args:
        error: the error.
        cfg: configuration of the command.
        trace: the file with the stack trace; None if the command has no folder.
    """
    kept = "" if trace is None else f"; the stack trace is in {trace}"
    memory = next((cause for cause in causes(error) if is_out_of_memory(cause)), None)
    if memory is not None:
        return f"The memory is exhausted ({_first_sentences(memory)}): {memory_advice(cfg)}{kept}."
    if trace is not None and any(_is_about_open_files(cause) for cause in causes(error)):
        return f"Too many files are open: raise the limit (ulimit -n), or lower data.num_workers{kept}."
    system = next((cause for cause in causes(error) if isinstance(cause, OSError)), None)
    if trace is None or (system is None and not isinstance(error, InstantiationException)):
        return None
    shown = system or list(causes(error))[-1]
    return f"{type(shown).__name__} ({_first_sentences(shown)}){kept}."


def _is_about_open_files(error: BaseException) -> bool:
    """Whether no more files can be opened; torch tells it of its workers by a RuntimeError."""
    if isinstance(error, OSError):
        return error.errno in TOO_MANY_FILES
    return isinstance(error, RuntimeError) and "too many open files" in str(error).lower()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory could not be allocated, on a GPU, on MPS or on the CPU."""
    torch = sys.modules.get("torch")  # a command that has not imported torch cannot have its errors
    own = (getattr(torch, "OutOfMemoryError", None), getattr(getattr(torch, "cuda", None), "OutOfMemoryError", None))
    if isinstance(error, (MemoryError, *(kind for kind in own if isinstance(kind, type)))):
        return True
    return isinstance(error, RuntimeError) and MEMORY.match(_plain(error)) is not None


def memory_advice(cfg: DictConfig) -> str:
    """Settings of a command that save memory and are not in use yet, with their present values."""

    def value(name: str) -> Any:
        return OmegaConf.select(cfg, name)

    accumulated = value("trainer.accumulate_grad_batches")
    if accumulated is None:
        sizes = [name for name in ("data.val_batch_size", "data.batch_size", "batch_size") if value(name)]
        return " or ".join([*(f"lower {name} (now {value(name)})" for name in sizes[:1]), "free memory"])
    ways = []
    if (size := value("data.batch_size")) is not None and size > 1:
        ways.append(
            f"lower data.batch_size (now {size}) and raise trainer.accumulate_grad_batches (now {accumulated}) by the same "
            "factor, which takes the same steps"
        )
    if str(value("trainer.precision")).startswith(("32", "64")):
        ways.append(f"set trainer.precision=bf16-mixed (now {value('trainer.precision')})")
    if value("method.gradient_checkpointing") is False:
        ways.append("set method.gradient_checkpointing=true")
    return ", or ".join(ways or ["give a smaller model or smaller crops (model.input_size)"])


def _plain(error: BaseException) -> str:
    """An error's message in one line, without the stack trace that a DataLoader worker puts around it."""
    text = str(error).strip()
    if WORKER_TRACE in text:
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())


def _first_sentences(error: BaseException, count: int = 2) -> str:
    text = " ".join(re.split(r"(?<=[a-zA-Z]\.) ", _plain(error))[:count]).rstrip(".")
    return text[:300] or type(error).__name__
