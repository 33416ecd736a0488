"""Break core lines one at a time, and show that `make test` notices each: `python scripts/mutation_sample.py`.

Each mutation changes one line in a copy of the package and runs the tests of the packages listed in `tests`, as `make test`
would (without the slow ones), until the first failure. A control run changes nothing. The exit status is 1 if a mutation is
not noticed, or the control fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]


class Mutation(NamedTuple):
    """One broken line.

    Attributes:
        what: description of the defect.
        file: path below src/distilpose.
        line: the correct code, which the file contains exactly once.
        broken: the broken code.
        tests: files and folders below tests/ that should fail.
    """

    what: str
    file: str
    line: str
    broken: str
    tests: str


MUTATIONS = (
    Mutation(
        "the regression loss ignores the target's weight", "losses/terms.py",
        "predicted * weights, target * weights, beta", "predicted * weights, target, beta", "losses",
    ),
    Mutation(
        "the simulated heat map has the wrong sign in its exponent", "losses/heatmaps.py",
        "torch.exp(-0.5 * (x - mean", "torch.exp(0.5 * (x - mean", "losses",
    ),
    Mutation(
        "the confidence loss sends a gradient into the teacher", "losses/terms.py",
        "return value.detach() * inside", "return value * inside", "losses",
    ),
    Mutation(
        "the flip test does not swap left and right scores", "evaluation/flip_test.py",
        "turned_scores = turned_scores[:, order]", "turned_scores = turned_scores", "evaluation",
    ),
    Mutation(
        "the flip test mirrors about the wrong axis", "evaluation/flip_test.py",
        "else (width - 1) / width", "else 1.0", "evaluation",
    ),
    Mutation(
        "decoding steps the wrong way within a cell", "data/codec.py",
        "gx, gy = 0.5 * (at(1, 0) - at(-1, 0))", "gx, gy = 0.5 * (at(-1, 0) - at(1, 0))", "data",
    ),
    Mutation(
        "the crop is half a pixel off", "data/geometry.py",
        "np.array([x + width * 0.5, y + height * 0.5]", "np.array([x + (width - 1) * 0.5, y + height * 0.5]", "data",
    ),
    Mutation(
        "the training sampler draws the same views in each epoch", "data/sampler.py",
        "np.random.default_rng((self.seed, self.epoch))", "np.random.default_rng((self.seed, 0))", "data",
    ),
    Mutation(
        "mirrored crops keep their left and right joints", "data/augmentation.py",
        "image_width if flipped else None)", "None)", "data",
    ),
    Mutation(
        "positions are subtracted instead of added", "models/encoder.py",
        "tokens = tokens + self.padded_positions", "tokens = tokens - self.padded_positions", "models",
    ),
    Mutation(
        "a resumed run takes the checkpoint with the fewest steps", "runs/checkpoints.py",
        "return max(", "return min(", "runs",
    ),
    Mutation(
        "accumulated gradients are not rescaled at an epoch's end", "modules/pose_module.py",
        "parameter.grad.mul_(wanted / left)", "parameter.grad.mul_(1.0)", "modules test_train.py test_train_options.py",
    ),
    Mutation(
        "OKS uses the sigma instead of twice the sigma", "evaluation/oks.py",
        "(2 * torch.as_tensor(sigmas", "(1 * torch.as_tensor(sigmas", "evaluation",
    ),
)  # fmt: skip


CONTROL = Mutation(
    "nothing (control)", "losses/terms.py", "beta: float = 1.0", "beta: float = 1.0", "losses data evaluation"
)


def notices(mutation: Mutation) -> tuple[bool, str]:
    """Run the tests on the broken line; return whether they fail, and pytest's last line."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "conf", Path(folder) / "conf")
        file = source / "distilpose" / mutation.file
        content = file.read_text()
        if content.count(mutation.line) != 1:
            sys.exit(
                f"error: {mutation.file} contains {mutation.line!r} {content.count(mutation.line)} times: expected once."
            )
        file.write_text(content.replace(mutation.line, mutation.broken))
        tests = [str(ROOT / "tests" / name) for name in mutation.tests.split()]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *tests],
            cwd=ROOT, env=os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        )  # fmt: skip
    return done.returncode == 1, (done.stdout.strip().splitlines() or [done.stderr])[-1]


def main() -> None:
    """Run all mutations and print a table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    table = Table("broken line", "file", "noticed", "seconds", "pytest")
    wrong = 0
    for mutation in (CONTROL, *MUTATIONS):
        began = time.monotonic()
        noticed, last = notices(mutation)
        wrong += noticed == (mutation is CONTROL)
        table.add_row(mutation.what, mutation.file, "yes" if noticed else "no", f"{time.monotonic() - began:.0f}", last)
        print(f"{mutation.what}: {'noticed' if noticed else 'not noticed'}", file=sys.stderr, flush=True)
    Console(width=160).print(table)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
