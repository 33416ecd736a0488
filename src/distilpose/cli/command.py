"""How every command starts: Hydra composes the configuration, and a mistake ends in one sentence."""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from distilpose.cli.distributed_errors import translate_distributed_errors
from distilpose.cli.paths import CONFIG_DIR
from distilpose.cli.process import resume_collector, silence_stdout
from distilpose.cli.settings import validate
from distilpose.errors import DistilPoseError

# what Hydra says of an override of nothing, and of a setting that the class it builds does not take
_UNKNOWN = re.compile(r"Could not override '([^']+)'")
_UNEXPECTED = re.compile(r"call to target '([^']+)'.*unexpected keyword argument '([^']+)'.*full_key: (\S+)", re.DOTALL)
_NO_CHOICE = "Config group override must be a string or a list"
TRACE = "HYDRA_FULL_ERROR"
MISTAKES = (CompactHydraException, OmegaConfBaseException, OSError)


def command(config_name: str, declared: type | None = None) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a task function into a command configured by `conf/<config_name>.yaml`.

    A mistake of the user's (an unknown override, a missing file, a folder that cannot be written) is printed as one
    sentence with exit status 1; anything else is a defect of ours and keeps its stack trace. With HYDRA_FULL_ERROR=1
    every error keeps it. In a multirun the other jobs still run.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(task)
        def main() -> None:
            resume_collector()
            asked = os.environ.get(TRACE, "0")
            start = hydra.main(config_path=str(CONFIG_DIR), config_name=config_name, version_base="1.3")
            if asked not in ("", "0"):
                return start(_validated(task, declared))()
            with _traces("1"):  # Hydra then lets exceptions through to here
                try:
                    return start(_report_errors(_validated(task, declared), asked))()
                except BrokenPipeError:
                    silence_stdout()
                except KeyboardInterrupt:
                    print("Interrupted.", file=sys.stderr)
                    sys.exit(128 + signal.SIGINT)
                except MISTAKES as error:
                    sys.exit(f"error: {_near_name(error, config_name) or sentence(error)}")
                except ValueError as error:
                    if _NO_CHOICE not in str(error):
                        raise
                    sys.exit(
                        "error: A group of settings takes the name of one of its files, which null is not: give one of "
                        "--help's, such as logger=none, or leave it out."
                    )

        return main

    return decorate


def _validated(task: Callable[[DictConfig], Any], declared: type | None) -> Callable[[DictConfig], Any]:
    """The task, after its configuration has been checked against the class that declares its settings."""

    @functools.wraps(task)
    def job(cfg: DictConfig) -> Any:
        if declared is not None:
            validate(cfg, declared)
        return task(cfg)

    return job


def _report_errors(task: Callable[[DictConfig], Any], asked: str) -> Callable[[DictConfig], Any]:
    """The task, leaving by itself on a mistake: Hydra would print a line of its own before the sentence."""

    @functools.wraps(task)
    def job(cfg: DictConfig) -> Any:
        with _traces(asked):  # processes that the task starts are commands themselves
            try:
                with translate_distributed_errors():
                    return task(cfg)
            except BrokenPipeError:
                silence_stdout()
            except MISTAKES as error:
                if HydraConfig.get().mode == RunMode.MULTIRUN:
                    print(f"error: {sentence(error)}", file=sys.stderr, flush=True)
                    raise
                _leave_no_empty_folder()
                sys.exit(f"error: {sentence(error)}")
            except Exception:  # a sweeper tells its sentence at the end, when the trace is gone
                if HydraConfig.get().mode == RunMode.MULTIRUN:
                    traceback.print_exc()
                raise

    return job


def _leave_no_empty_folder() -> None:
    """Remove the folder that Hydra made for the run, if nothing was written; commands without one have the current folder."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    if folder != Path.cwd():
        with suppress(OSError):  # it holds something
            folder.rmdir()


@contextmanager
def _traces(value: str) -> Iterator[None]:
    """HYDRA_FULL_ERROR as given inside the block."""
    before = os.environ.get(TRACE)
    os.environ[TRACE] = value
    try:
        yield
    finally:
        os.environ.pop(TRACE)
        if before is not None:
            os.environ[TRACE] = before


def sentence(error: BaseException) -> str:
    """What to tell: our own message where one is in the chain of causes, else the error's."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DistilPoseError):
            return _from_worker(str(cause))
        cause = cause.__cause__
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is not set: give {error.full_key}=…, and see --help for what it takes."
    if isinstance(error, MissingConfigException):
        return _not_known(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"Cannot use '{error.filename}': {error.strerror}; give a path that exists and may be read and written."
    unexpected = _UNEXPECTED.search(str(error))
    if unexpected is not None:
        target, name, group = unexpected.groups()
        target = target.rpartition(".")[2]
        return f"{group}.{name} is no setting of {target}: take it out by ~{group}.{name}, or choose another {group}."
    return " ".join(_from_worker(str(error)).split())


def _not_known(error: MissingConfigException) -> str:
    """What there is in place of a choice that is not there; Hydra's own text goes on with where it looked."""
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = error.options or sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml") if group)
    if not options:
        return " ".join(str(error).partition("Config search path:")[0].split())
    return f"{group}={name} is not known: expected one of {', '.join(options)}."


def _near_name(error: BaseException, config_name: str) -> str | None:
    """A misspelt setting with the names that are like it, where there are any."""
    found = _UNKNOWN.match(str(error))
    if found is None:
        return None
    # of the choices on the command line, as each has settings of its own
    chosen = [word for word in sys.argv[1:] if (CONFIG_DIR / word.partition("=")[0]).is_dir()]
    GlobalHydra.instance().clear()
    with suppress(*MISTAKES), hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        node: Any = hydra.compose(config_name, chosen)
        parts = found[1].split(".")
        for place, part in enumerate(parts):
            if not isinstance(node, DictConfig):
                return None
            if part not in node:
                before = "".join(f"{each}." for each in parts[:place])
                near = " or ".join(before + name for name in get_close_matches(part, map(str, node)))
                return f"{before}{part} is not known: did you mean {near}?" if near else None
            node = node._get_node(part)
    return None


def _from_worker(text: str) -> str:
    """The message itself, where a data-loading process sent it in its whole stack trace."""
    if "Original Traceback (most recent call last)" not in text:
        return text
    return text.strip().splitlines()[-1].partition(": ")[2]
