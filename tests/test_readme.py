"""What the documents tell people to type: every command composes, every target and file exists, the Python runs."""

from __future__ import annotations

import importlib.util
import re
import shlex
from itertools import product
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.utils import instantiate
from omegaconf import DictConfig

from distilpose import dataset, report
from distilpose.cli.paths import CONFIG_DIR
from distilpose.losses.distillation import PAPER

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    "README.md",
    "docs/method.md",
    "docs/data.md",
    "docs/teachers.md",
    "docs/results.md",
    "docs/evaluation.md",
    "docs/cluster.md",
    "docs/training.md",
    "docs/sweeps.md",
    "docs/own_data.md",
    "docs/prediction.md",
    "docs/export.md",
    "docs/sharing.md",
    "docs/demo.md",
    "docs/index.md",
]
OF_FILES = ("docs/prediction.md", "docs/export.md", "docs/index.md")
TEXTS = {page: (ROOT / page).read_text() for page in PAGES}


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXTS[page], re.MULTILINE | re.DOTALL)


def commands(prefix: str) -> list[str]:
    """Command lines of the shell blocks, without their comments."""
    shell = [block.replace("\\\n", " ") for page in PAGES for block in blocks(page, "sh")]
    lines = [line for block in shell for line in block.splitlines()]
    return [shlex.join(shlex.split(line, comments=True)) for line in lines if line.startswith(prefix)]


COMMANDS = commands("python -m distilpose.")
# experiments and sweeps that are sweeps by themselves, and launchers, which are of sweeps alone
SWEEPING = {
    f"{group}={path.stem}"
    for group in ("experiment", "sweep", "launcher")
    for path in (CONFIG_DIR / group).glob("*.yaml")
    if "sweeper:" in path.read_text() or group == "launcher"
}


def compositions(words: list[str]) -> list[list[str]]:
    """The overrides of each job: one, or with -m every combination of the values swept over."""
    given = [word for word in words if word not in ("-m", "--multirun")]
    parsed = OverridesParser.create().parse_overrides(given)
    swept = [override.is_sweep_override() for override in parsed]
    multirun = len(given) < len(words)
    assert multirun or not any(swept), "values to sweep over want -m"
    assert not multirun or any(swept) or any(word in SWEEPING for word in given), "-m wants values to sweep over"
    choices = [
        _values(override) if sweeps else [word] for override, sweeps, word in zip(parsed, swept, given, strict=True)
    ]
    return [list(job) for job in product(*choices)]


def _values(override: Override) -> list[str]:
    """What a sweep sets, or of a range without steps its ends."""
    sweep = override.value()
    ends = [sweep.start, sweep.end] if isinstance(sweep, IntervalSweep) else override.sweep_string_iterator()
    return [f"{override.get_key_element()}={value}" for value in ends]


def composed(line: str) -> list[DictConfig]:
    """The configurations a command line stands for."""
    module, *words = shlex.split(line)[2:]
    assert importlib.util.find_spec(module) is not None
    if module == "distilpose.dataset":  # these two take arguments as other programs do
        dataset._parser().parse_args(words)
        return []
    if module == "distilpose.runtime":
        assert words[0].endswith(".onnx")
        return []
    if module == "distilpose.report":
        words = report.arguments(words)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return [compose(module.removeprefix("distilpose."), job) for job in compositions(words)]


def test_the_commands_of_every_kind_are_told():
    told = {line.split()[2].removeprefix("distilpose.") for line in COMMANDS}
    assert {"train", "evaluate", "convert", "predict", "benchmark"} <= told


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_compose(line):
    for cfg in composed(line):
        if ".train " in line:
            is_teacher = cfg.model.name.startswith("teacher")
            assert ("heatmap" in cfg.method._target_.lower()) == is_teacher
            assert (cfg.loss._target_.rpartition(".")[2].startswith("Heatmap")) == is_teacher
            needs_teacher = not is_teacher and instantiate(cfg.loss).needs_teacher
            named = cfg.resume or cfg.teacher.get("checkpoint") or cfg.teacher.get("file")
            assert not needs_teacher or named or cfg.teacher._target_.endswith("LabelTeacher")


def test_a_sweep_is_as_many_jobs_as_it_has_combinations():
    assert compositions(["-m", "loss=regression,tokens", "seed=0,1,2"])[-1] == ["loss=tokens", "seed=2"]
    assert len(compositions(["-m", "loss=regression,tokens", "seed=0,1,2"])) == 6
    assert compositions(["models=[student_s,student_l]"]) == [["models=[student_s,student_l]"]]


def test_a_misspelt_command_would_be_found():
    for line in ("python -m distilpose.train modle=student_s", "python -m distilpose.train model=student_sx"):
        with pytest.raises(Exception, match=r"student_sx|modle"):
            composed(line)
    with pytest.raises(AssertionError):
        composed("python -m distilpose.trian model=student_s")


def test_make_targets_and_scripts_exist():
    makefile = (ROOT / "Makefile").read_text()
    for line in commands("make "):
        assert re.search(rf"^{line.split()[1]}:", makefile, re.MULTILINE)
    scripts = commands("python scripts/")
    assert scripts
    for line in scripts:
        assert (ROOT / line.split()[1]).is_file()


def test_losses_of_a_run_are_those_the_table_names():
    section = TEXTS["docs/method.md"].split("## Losses")[1].split("\nwith G")[0]
    rows = re.findall(r"^\| ([a-z ]+) \| .* \| (\S+) \|$", section, re.MULTILINE)
    told = {
        name.replace(" ", "_").replace("heat_map", "heatmap"): float(weight) for name, weight in rows if name != "term"
    }
    (cfg,) = composed("python -m distilpose.train loss=distilpose")
    assert told == {name: cfg.loss[name] for name in PAPER}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", TEXTS[page]):
        name, _, anchor = target.partition("#")
        place = (ROOT / page).parent / name if name else ROOT / page
        assert place.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", place.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.slow
# those of the others want a model and photographs
@pytest.mark.parametrize("page", [page for page in PAGES if page not in OF_FILES and blocks(page, "python")])
def test_python_blocks_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"{page}, block {number}", "exec"), {})
    printed = capsys.readouterr().out
    if page == "README.md":
        assert "['student_l', 'student_s', 'student_timm', 'student_xs']" in printed
        assert "torch.Size([1, 17, 2]) torch.Size([1, 17])" in printed
    if page == "docs/evaluation.md":
        measured = {float(line.split()[0]): float(line.split()[1]) for line in printed.splitlines()}
        rows = re.findall(r"^\| \**([\d.]+)\**[^|]*\| \**([−+][\d.]+)\** \|", TEXTS[page], re.MULTILINE)
        told = {float(shift): float(error.replace("−", "-")) for shift, error in rows}
        assert told.keys() == measured.keys()
        assert all(abs(told[shift] - measured[shift]) < 0.006 for shift in told)


def test_figures_of_the_networks_are_the_registrys():
    from distilpose.models import count_parameters, create_model

    row = r"^\| `(\w+)` \|.*?([\d,]{9,}) \| ([\d.]+) \|"
    told, again = (set(re.findall(row, TEXTS[page], re.MULTILINE)) for page in ("README.md", "docs/method.md"))
    assert len(told) == 4
    assert told == again
    for name, count, _ in told:
        assert count_parameters(create_model(name)) == int(count.replace(",", ""))
