"""Options of the train command: the effect of each, and that a run with all of them resumes."""

from __future__ import annotations

import shutil

import pytest
import torch
from lightning import Callback

from distilpose import load_model
from distilpose.callbacks.metrics_table import read_table

TINY = [
    "data=custom", "data.batch_size=4", "data.num_workers=0", "augmentation=none", "model=student_xs", "model.depth=1",
    "model.width=32", "model.heads=2", "loss=regression", "optimizer.lr=5e-3", "scheduler.warmup_steps=0", "logger=none",
    "trainer.accelerator=cpu", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=2",
    "trainer.num_sanity_val_steps=0", "~callbacks.pictures", "~callbacks.health", "~callbacks.details", "~callbacks.progress",
]  # fmt: skip


@pytest.fixture(autouse=True)
def deterministic_for_one_test_only():
    """Lightning leaves torch deterministic."""
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def trained(trained_by):
    """Train in the folder of that name, on the tiny data set of the test (17 persons); return the folder."""
    return trained_by(TINY, train=12)


class Watch(Callback):
    """Records `look(trainer, module, outputs)` after each batch, before the gradients are cleared."""

    seen: list = []
    look = None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        type(self).seen.append(type(self).look(trainer, pl_module, outputs))


@pytest.fixture
def watched(monkeypatch):
    """Add a `Watch` to a run: watched(look) returns the override and the list of recorded values."""

    def call(look):
        seen: list = []
        monkeypatch.setattr(Watch, "seen", seen)
        monkeypatch.setattr(Watch, "look", staticmethod(look))
        return f"+callbacks.watch._target_={__name__}.Watch", seen

    return call


def gradient(trainer, module, outputs):
    """All gradients as one vector."""
    return torch.cat([p.grad.flatten().clone() for p in module.parameters() if p.grad is not None])


def weights(folder, state="state_dict"):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)[state]


# without training batch norms, which depend on the other persons of a batch
FROZEN = ["method.frozen=[backbone]", "optimizer._target_=torch.optim.SGD", "optimizer.lr=0.5"]


def test_accumulated_batches_are_one_large_batch(trained):
    large = trained("large", *FROZEN, "data.batch_size=8")
    several = trained("several", *FROZEN, "trainer.accumulate_grad_batches=2")
    small = trained("small", *FROZEN)
    assert torch.load(several / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4
    one, other, third = map(weights, (large, several, small))
    assert all(torch.allclose(value, other[name], rtol=1e-3, atol=1e-4) for name, value in one.items())
    assert not all(torch.allclose(value, third[name], rtol=1e-3, atol=1e-4) for name, value in one.items())


def test_the_last_step_of_an_epoch_is_the_mean_of_the_batches_that_are_left(trained, watched):
    still = [*FROZEN, "optimizer.lr=0", "trainer.max_epochs=1"]
    override, alone = watched(gradient)
    trained("alone", *still, override)
    override, accumulated = watched(gradient)
    trained("accumulated", *still, override, "trainer.accumulate_grad_batches=5")
    assert len(alone) == len(accumulated) == 4
    torch.testing.assert_close(accumulated[3], torch.stack(alone).mean(dim=0))


def test_gradients_are_clipped(trained, watched):
    norms = []
    for name, clip in (("free", "null"), ("clipped", "1e-3")):
        override, seen = watched(gradient)
        trained(name, override, f"trainer.gradient_clip_val={clip}", "trainer.max_epochs=1")
        norms.append([value.norm().item() for value in seen])
    assert min(norms[0]) > 2e-3
    assert norms[1] == pytest.approx([1e-3] * 4, rel=1e-2)


def test_mixed_precision_computes_in_bfloat16_and_sums_losses_in_float32(trained, watched):
    def kinds(trainer, module, outputs):
        with trainer.precision_plugin.forward_context(), torch.no_grad():
            features = module.model.backbone(torch.zeros(1, 3, 64, 48))
        return features.dtype, outputs["loss"].dtype, next(module.parameters()).dtype

    override, seen = watched(kinds)
    trained("mixed", override, "trainer.precision=bf16-mixed", "trainer.max_epochs=1")
    assert set(seen) == {(torch.bfloat16, torch.float32, torch.float32)}


def test_a_rate_a_block_and_frozen_blocks(trained, watched):
    def rates(trainer, module, outputs):
        return [group["lr"] for group in trainer.optimizers[0].param_groups]

    override, seen = watched(rates)
    folder = trained("run", override, "method.layer_decay=0.5", "optimizer.lr=0.01", "scheduler=cosine")
    assert all(rate == pytest.approx(before * 2) for before, rate in zip(seen[0][:-2], seen[0][1:-1], strict=True))
    assert seen[0][-1] == seen[0][-2]
    # the logged rate is that of the last block
    assert read_table(folder / "metrics.csv")[0]["train/learning_rate"] == pytest.approx(seen[3][-1], rel=0.5)


def test_half_precision_on_a_cpu_becomes_bfloat16_with_a_warning(trained, watched):
    override, seen = watched(lambda trainer, module, outputs: trainer.precision)
    with pytest.warns(UserWarning, match="fp16 is not supported on CPU. Using `precision='bf16-mixed'` instead"):
        trained("half", override, "trainer.precision=16-mixed", "trainer.max_epochs=1")
    assert set(seen) == {"bf16-mixed"}


@pytest.mark.slow
def test_averaged_and_raw_weights_of_a_checkpoint(run_train, trained, tmp_path):
    # validation, and so the best checkpoint, uses the averaged weights
    folder = trained("run", "callbacks=ema", "callbacks.ema.decay=0.5")
    last = folder / "checkpoints" / "last.ckpt"
    raw, averaged = (
        {name.removeprefix("model."): value for name, value in weights(folder, state).items()}
        for state in ("current_model_state", "state_dict")
    )
    assert any(not torch.equal(value, averaged[name]) for name, value in raw.items())
    plain = trained("plain") / "checkpoints" / "last.ckpt"
    for wanted, kind in ((averaged, {}), (averaged, {"weights_kind": "averaged"}), (raw, {"weights_kind": "raw"})):
        loaded = load_model(last, **kind).state_dict()
        assert all(torch.equal(value, wanted[name]) for name, value in loaded.items())
        assert load_model(plain, **kind)  # it has only one kind

    # without callbacks=ema a resumed run trains the raw weights; weights=FILE uses those that weights_kind selects
    rest = trained("rest", f"resume={last}", "trainer.max_epochs=4")
    assert "current_model_state" not in torch.load(rest / "checkpoints" / "last.ckpt", weights_only=True)
    for kind, wanted in (("averaged", averaged), ("raw", raw)):
        start = trained(kind, f"weights={last}", f"weights_kind={kind}", "optimizer.lr=0", "method.frozen=[backbone]")
        loaded = load_model(start / "checkpoints" / "last.ckpt").state_dict()
        assert all(torch.equal(value, wanted[name]) for name, value in loaded.items()), kind
    # identical to a training without averaging from the start
    parts = trained("parts", "trainer.max_epochs=4")
    assert all(torch.equal(value, weights(rest)[name]) for name, value in weights(parts).items())


def test_an_early_stop_comes_with_averaged_weights_and_is_an_end(run_train, trained):
    arguments = [
        "callbacks=[ema,early_stopping]", "callbacks.early_stopping.patience=1", "optimizer.lr=0", "resume=auto",
        "trainer.max_epochs=9", "trainer.check_val_every_n_epoch=1", "method.frozen=[backbone]",
    ]  # fmt: skip
    folder = trained("run", *arguments)
    assert [row["epoch"] for row in read_table(folder / "metrics.csv")] == [0, 1]
    assert "averaging_state" in torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    trained("run", *arguments)  # does not train another epoch each time it is started
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_run_with_all_options_ends_bit_for_bit_where_an_uninterrupted_one_does(run_train, trained):
    options = [
        "callbacks=[ema,early_stopping]", "callbacks.ema.decay=0.5", "callbacks.early_stopping.patience=9",
        "trainer.accumulate_grad_batches=3", "trainer.gradient_clip_val=0.01", "trainer.precision=bf16-mixed",
        "trainer=deterministic", "method.gradient_checkpointing=true", "method.layer_decay=0.8",
        "method.frozen=[encoder.layers.0]", "augmentation=photometric", "trainer.check_val_every_n_epoch=1",
    ]  # fmt: skip
    reference = trained("whole", *options, "trainer.max_epochs=4")
    parts = trained("parts", *options)
    status, printed = run_train(f"resume={parts}", "trainer.max_epochs=4")
    assert status == 0, printed
    for state in ("state_dict", "current_model_state"):
        one, other = weights(reference, state), weights(parts, state)
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    tables = [read_table(folder / "metrics.csv") for folder in (reference, parts)]
    assert [{**row, "seconds": 0} for row in tables[0]] == [{**row, "seconds": 0} for row in tables[1]]


def test_a_deterministic_run_asks_torch_for_it(trained, watched):
    override, seen = watched(lambda trainer, module, outputs: torch.are_deterministic_algorithms_enabled())
    trained("run", "trainer=deterministic", "trainer.max_epochs=1", override)
    assert set(seen) == {True}


def test_a_profile_is_written(trained):
    text = (trained("run", "trainer=profile", "trainer.max_epochs=1") / "fit-profile.txt").read_text()
    assert all(part in text for part in ("run_training_batch", "optimizer_step", "Mean duration"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_model_trains_and_its_checkpoint_knows_nothing_of_it(trained):
    one, other = trained("plain", "trainer.max_epochs=1"), trained("compiled", "method.compile=true", "callbacks=ema")
    assert set(weights(one)) == set(weights(other)) == set(weights(other, "current_model_state"))
    load_model(other / "checkpoints" / "last.ckpt")
    rows = [read_table(folder / "metrics.csv")[0]["train/total"] for folder in (one, other)]
    assert rows[0] == pytest.approx(rows[1], rel=1e-3)


def test_a_tenth_of_each_epoch(trained):
    folder = trained("run", "trainer=limit", "data.batch_size=1")  # 17 batches, two epochs
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2


def test_a_tenth_of_too_few_batches_is_an_error(run_train, trained):
    status, printed = run_train(*TINY, f"data.root={trained.root}", "trainer=limit", "hydra.run.dir=run")
    assert status == 1
    assert all(fact in printed.splitlines()[-1] for fact in ("Lightning", "limit_train_batches"))


@pytest.mark.slow
def test_sixteen_persons_are_overfitted(run_train, tmp_path):
    drawn = ["data=synthetic", "data.num_train=30", "data.num_val=8", "data.max_persons=1", "data.image_size=96"]
    status, printed = run_train(
        "experiment=overfit", *drawn, "model=student_xs", "loss=regression", "data.num_workers=0", "threads=1",
        "trainer.accelerator=cpu", "~callbacks.pictures", "~callbacks.health", "~callbacks.details", "hydra.run.dir=run",
    )  # fmt: skip
    assert status == 0, printed
    scores = [row["val/AP"] for row in read_table(tmp_path / "run" / "metrics.csv") if "val/AP" in row]
    assert scores[0] < 0.7
    assert scores[-1] > 0.9
