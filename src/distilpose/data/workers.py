"""How data-loading workers start, and what each does before it loads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

import cv2


def init_worker(worker: int) -> None:
    """Use one core, and leave shutdown signals to the training process.

    torchrun, systemd, terminals and others signal all processes of a job at once. If the workers ended first, the
    training could not finish its step and save a checkpoint. A worker therefore accepts SIGTERM from its parent only.
    """
    cv2.setNumThreads(0)  # OpenCV's own threads would compete with the other workers
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # the only call that reports the sender; macOS lacks it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_parents_sigterm, daemon=True).start()


def _exit_on_parents_sigterm() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def start_method() -> str | None:
    """Start method of workers; None is Python's default.

    Inside a joblib job the default is joblib's own "loky", with which only joblib can start processes. There the
    system's default is used.
    """
    return multiprocessing.get_all_start_methods()[0] if multiprocessing.get_start_method() == "loky" else None
