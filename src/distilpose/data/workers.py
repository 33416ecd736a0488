"""How loading processes start, and what each does before it loads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

import cv2


def settle(worker: int) -> None:
    """Leave the cores to the other workers, and signals that ask the training to leave to the training's process.

    torchrun, systemd, a terminal and others send them to all processes there are; a training whose workers go first cannot
    end its step and save. A SIGTERM is obeyed from the training's process alone, which so ends what does not end itself.
    """
    cv2.setNumThreads(0)  # OpenCV's own threads would fight over the cores with the other workers
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # who sent a signal is told to one who waits for it, and not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_the_training, daemon=True).start()


def _obey_the_training() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def start_method() -> str | None:
    """How loading processes are started; None is as usual.

    In a job of joblib's the usual way is joblib's own, by which only joblib can start processes: there it is the system's.
    """
    return multiprocessing.get_all_start_methods()[0] if multiprocessing.get_start_method() == "loky" else None
