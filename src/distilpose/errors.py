"""The one error a person using DistilPose is meant to read."""

from hydra.errors import CompactHydraException


class DistilPoseError(CompactHydraException, ValueError):
    """A mistake in what was asked for or given, told in one sentence.

    The message names the value, what was expected and the way out. Being a compact Hydra exception, a command prints
    that sentence without a stack trace and exits with status 1; being a `ValueError`, library code catches it as such.
    """
