"""A whole model under mixed precision, compilation, export and training."""

from __future__ import annotations

import pytest
import torch

from distilpose.models import create_model
from distilpose.outputs import StudentOutput

XS = {"depth": 2, "widths": [8, 8, 8, 8], "out_channels": 8, "width": 16, "heads": 2}
NAMES = ["student_xs", "teacher_xs"]


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_float32_under_autocast(name):
    torch.manual_seed(0)
    model = create_model(name, **XS).eval()
    images = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        exact = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            output = model(images)
    assert all(field.dtype == torch.float32 for field in output if field is not None)
    torch.testing.assert_close(output[0], exact[0], rtol=0.05, atol=0.02)
    if isinstance(output, StudentOutput):  # recomputed from its own tokens, nothing was rounded to bfloat16
        raw = model.head.linear(model.head.norm(output.keypoint_tokens))
        torch.testing.assert_close(output.keypoints, raw[..., :2].sigmoid(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_float64_and_bfloat16_models(name):
    model = create_model(name, **XS).eval()
    assert model.double()(torch.randn(1, 3, 64, 48, dtype=torch.float64))[0].dtype == torch.float64
    assert model.bfloat16()(torch.randn(1, 3, 64, 48, dtype=torch.bfloat16))[0].dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize(("name", "autocast"), [("student_xs", True), ("teacher_xs", False)])
def test_compiles_as_one_graph(name, autocast):
    torch._dynamo.reset()
    model = create_model(name, **XS).train()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    images = torch.randn(2, 3, 64, 48)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        torch.testing.assert_close(compiled(images)[0], model(images)[0], rtol=1e-4, atol=1e-5)


def test_exports_with_a_free_batch_size():
    model = create_model("student_xs", **XS).eval()
    dynamic = {"images": {0: torch.export.Dim("batch", max=64)}}
    program = torch.export.export(model, (torch.randn(2, 3, 64, 48),), dynamic_shapes=dynamic)
    images = torch.randn(5, 3, 64, 48)
    torch.testing.assert_close(program.module()(images).keypoints, model(images).keypoints)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns(name):
    torch.manual_seed(0)
    model = create_model(name).train()
    images, target = torch.randn(8, 3, 64, 48), torch.rand(8, 17, 2)
    heatmaps = torch.rand(8, 17, 1, 1).expand(-1, -1, 16, 12)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(60):
        output = model(images)
        if isinstance(output, StudentOutput):
            target_scores, target_sigmas = target.mean(-1), 1 + target
            loss = (output.keypoints - target).square().mean()
            loss = loss + (output.scores - target_scores).square().mean()
            loss = loss + (output.sigmas - target_sigmas).square().mean()
        else:
            loss = (output.heatmaps - heatmaps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        losses.append(loss.item())
        optimizer.step()
    assert all(p.grad.any() for p in model.parameters())
    assert losses[-1] < 0.3 * losses[0], (losses[0], losses[-1])
