"""The start of every command: Hydra composes the configuration, `validate` checks it, a user error is one sentence."""

from __future__ import annotations

import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from distilpose.cli.distributed_errors import LostProcessError, translate_distributed_errors
from distilpose.cli.failures import (
    FULL_DISK,
    PATHS,
    WORKER_TRACE,
    failure_message,
    is_user_error,
    run_folder,
    write_crash_log,
)
from distilpose.cli.help import print_settings
from distilpose.cli.path_values import quote_paths
from distilpose.cli.paths import CONFIG_DIR
from distilpose.cli.process import log_to_stderr, silence_stdout, stdout_is_closed
from distilpose.cli.resolvers import register_resolvers
from distilpose.cli.validate_settings import validate_command
from distilpose.errors import DistilPoseError, first_line
from distilpose.files import remove_if_empty

# start of Hydra's ValueErrors for a group whose value is not text, such as null
WRONG_GROUP = "Config group override"
TRACE = "HYDRA_FULL_ERROR"
USER_ERRORS = (DistilPoseError, CompactHydraException, OmegaConfBaseException, OSError)


class ProcessSetup:
    """Prepares a process for composing configurations: resolvers, and a handler for log messages.

    A launcher pickles the task for a job in another process. Unpickling this object prepares that process too.
    """

    def __init__(self) -> None:
        self.prepare()

    def prepare(self) -> None:
        """Register resolvers and the log handler. A job calls it again, as Hydra has replaced the logging configuration."""
        register_resolvers()
        log_to_stderr()

    def __reduce__(self) -> tuple[type[ProcessSetup], tuple[()]]:
        return ProcessSetup, ()


def command(
    config_name: str,
    declared: type | None = None,
    effective: Callable[[DictConfig], DictConfig] = lambda cfg: cfg,
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a task function into a command configured by `conf/<config_name>.yaml`.

    A user error (an unknown override, a missing file, a folder that cannot be written) is printed as one sentence, and
    the exit status is 1. So is a failure of the machine (no memory left, a lost connection), whose stack trace is written to
    crash.log in the run's folder. Any other exception is a defect of this package: its stack trace is printed too. With
    HYDRA_FULL_ERROR=1 every error keeps its trace. In a multirun the other jobs still run. The
    values of path settings are taken as they are, see `path_values`.

    Args:
        config_name: name of the root configuration.
        declared: class whose annotations declare the command's own settings; all settings are then validated before the
            task starts, and listed by --help.
        effective: returns the configuration to validate. A resumed training uses the one saved in its folder.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        @functools.wraps(task)
        def main() -> None:
            setup = ProcessSetup()
            show_traces = os.environ.get(TRACE, "0")
            start = hydra.main(config_path=str(CONFIG_DIR), config_name=config_name, version_base="1.3")
            job = _make_job(task, declared, effective, show_traces, setup)
            with _traces("1"):  # Hydra then lets exceptions through to here
                try:
                    sys.argv[1:] = quote_paths(sys.argv[1:], declared)
                    start(job)()
                except SystemExit:
                    if declared is not None and {"-h", "--help"} & {*sys.argv[1:]}:
                        print_settings(config_name, declared, sys.argv[1:])
                    raise
                except KeyboardInterrupt:
                    print("Interrupted.", file=sys.stderr)
                    sys.exit(128 + signal.SIGINT)
                except (*USER_ERRORS, ValueError) as error:
                    if isinstance(error, BrokenPipeError) and stdout_is_closed():
                        silence_stdout()
                        return
                    if show_traces not in ("", "0") or not (is_user_error(error) or WRONG_GROUP in str(error)):
                        raise
                    sys.exit(f"error: {error_message(error)}")

        return main

    return decorate


def _make_job(
    task: Callable[[DictConfig], Any],
    declared: type | None,
    effective: Callable[[DictConfig], DictConfig],
    show_traces: str,
    setup: ProcessSetup,
) -> Callable[[DictConfig], Any]:
    """Wrap a task: validate its settings first, and report its errors.

    It calls sys.exit itself on a user error; otherwise Hydra prints an extra line before our message.
    """

    @functools.wraps(task)
    def job(cfg: DictConfig) -> Any:
        setup.prepare()
        with _traces(show_traces):  # child processes read HYDRA_FULL_ERROR too: give them the user's value
            used = cfg
            try:
                with translate_distributed_errors():
                    if declared is not None:
                        used = effective(cfg)
                        validate_command(used, declared)
                    return task(cfg)
            except Exception as error:
                if isinstance(error, BrokenPipeError) and stdout_is_closed():
                    silence_stdout()
                    return None
                mistake = is_user_error(error)
                trace = None if mistake and not isinstance(error, LostProcessError) else write_crash_log()
                message = error_message(error) if mistake else failure_message(error, used, trace)
                if message is None or show_traces not in ("", "0"):
                    if not mistake and _in_multirun():  # the sweeper only prints the message, at its end
                        traceback.print_exc()
                    raise
                if _in_multirun():
                    print(f"error: {message}", file=sys.stderr, flush=True)
                    if mistake:
                        raise
                    raise DistilPoseError(message) from error
                if (folder := run_folder()) is not None:
                    remove_if_empty(folder)
                sys.exit(f"error: {message}")

    return job


def _in_multirun() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


@contextmanager
def _traces(value: str) -> Iterator[None]:
    """Set HYDRA_FULL_ERROR to `value` inside the block, and restore it afterwards."""
    before = os.environ.get(TRACE)
    os.environ[TRACE] = value
    try:
        yield
    finally:
        os.environ.pop(TRACE)
        if before is not None:
            os.environ[TRACE] = before


def error_message(error: BaseException) -> str:
    """The message for a user error: that of a `DistilPoseError` among its causes, else one made from the error itself."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DistilPoseError):
            return _without_worker_trace(str(cause))
        cause = cause.__cause__
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} is not set: give {error.full_key}=…, and see --help for what it takes."
    if isinstance(error, MissingConfigException) or WRONG_GROUP in str(error):
        return _unknown_choice(error)
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        place = "" if error.filename is None else f" of '{error.filename}'"
        return f"The disk{place} is full ({error.strerror}): free some space, then run the same command again."
    if isinstance(error, OSError) and error.filename is not None:
        way = "; give a path that exists and may be read and written" if isinstance(error, PATHS) else ""
        return f"Cannot use '{error.filename}': {error.strerror}{way}."
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        name = str(error).rpartition("full_key: ")[2] if "full_key: " in str(error) else "a setting"
        return f"{name} is rejected ({first_line(error.__cause__)}): correct it, --help lists what each setting takes."
    shown = error if str(error) or error.__cause__ is None else error.__cause__
    if isinstance(shown, OmegaConfBaseException) and shown.full_key:
        text = f"{shown.full_key} cannot be used ({first_line(shown)}): give it, or the setting that it refers to; see --help."
        return _near_name(error) or text
    text = " ".join(_without_worker_trace(str(shown)).split())
    if text.startswith("Error merging override"):
        text += f" ({first_line(error.__cause__ or error)}): correct it, see --help."
    return _near_name(error) or text


def _unknown_choice(error: BaseException) -> str:
    """The choices of a group; Hydra's own messages list the folders it searched, or do not name the group."""
    if isinstance(error, MissingConfigException):
        choices = [str(error.missing_cfg_file).rpartition("/")]
    else:
        choices = [argument.lstrip("+~").partition("=") for argument in sys.argv[1:] if "=" in argument]
    for group, _, name in choices:
        options = getattr(error, "options", None) or [
            path.stem for path in (CONFIG_DIR / group).glob("*.yaml") if group
        ]
        if options and name not in options:
            return f"{group}={name} is not known: expected one of {', '.join(sorted(options))}."
    return " ".join(str(error).partition("Config search path:")[0].split())


def _near_name(error: BaseException) -> str | None:
    """A message with similar names for an override of an unknown setting; None if there are no similar names."""
    cause = error.__cause__
    if not isinstance(cause, OmegaConfBaseException) or not isinstance(cause.parent_node, DictConfig):
        return None
    if cause.key in cause.parent_node:  # the name is right, and the value is wrong
        return None
    name = str(cause.full_key)
    group = name.rpartition(".")[0]
    near = get_close_matches(str(cause.key), map(str, cause.parent_node))
    names = " or ".join(f"{group}.{key}" if group else key for key in near)
    return f"{name} is not known: did you mean {names}?" if near else None


def _without_worker_trace(text: str) -> str:
    """The message without the stack trace that a DataLoader worker puts around it."""
    if WORKER_TRACE not in text:
        return text
    return text.strip().splitlines()[-1].partition(": ")[2]
