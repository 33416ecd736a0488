"""check=true does all that a run does on a small scale, writes nothing, and tells what the run will take."""

from __future__ import annotations

import pytest

from distilpose import dry_run

TINY = [
    "data=custom", "data.batch_size=4", "data.num_workers=0", "model=student_xs", "model.depth=1", "model.width=32",
    "model.heads=2", "model.input_size=[64,48]", "scheduler.warmup_steps=0", "loss=regression",
    "trainer.accelerator=cpu", "trainer.max_epochs=30", "trainer.check_val_every_n_epoch=10", "check=true",
]  # fmt: skip


@pytest.mark.parametrize("extra", [[], ["callbacks=ema", "trainer.accumulate_grad_batches=2"]])
def test_it_writes_nothing_and_tells_the_time(run_train, tiny_coco, tmp_path, monkeypatch, extra):
    root = tiny_coco(train=17, val=6)
    before = sorted(tmp_path.rglob("*"))
    found = {}
    monkeypatch.setattr(dry_run, "_tell", lambda figures, memory: found.update(figures))
    status, told = run_train(*TINY, *extra, f"data.root={root}", "hydra.run.dir=run")
    assert status == 0, told
    assert [path for path in tmp_path.rglob("*") if path not in before and path.name != "run"] == []
    # 24 persons are six batches an epoch, and there are three validations
    steps, validations = 30 * 6 * found["seconds_a_step"], 3 * found["seconds_a_validation"]
    assert found["hours"] == pytest.approx((steps + validations) / 3600)
    assert all(value > 0 for value in found.values())


def test_what_would_fail_later_fails_now(run_train, tiny_coco):
    status, told = run_train(*TINY, f"data.root={tiny_coco()}", "loss=distilpose", "teacher.checkpoint=absent.ckpt")
    assert status == 1
    assert "absent.ckpt" in told.splitlines()[-1]
