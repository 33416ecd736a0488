from __future__ import annotations

import json
import math

import pytest
import torch

from distilpose.errors import DistilPoseError
from distilpose.losses import (
    DistillationLoss,
    HeatmapMSE,
    TokenShape,
    confidence_loss,
    regression_loss,
    simulated_heatmap_loss,
    simulated_heatmaps,
    teacher_confidence,
    token_loss,
)
from distilpose.outputs import StudentOutput, TeacherOutput

TERMS = ["regression", "visual_token", "keypoint_token", "confidence", "simulated_heatmap"]


def random_case(batch=3, joints=5, rows=8, columns=6, width=4, seed=0, dtype=torch.float64):
    """Student and teacher outputs with some joints unlabelled."""
    draw = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return torch.rand(*shape, generator=draw, dtype=torch.float64).to(dtype)

    student = StudentOutput(
        uniform(batch, joints, 2),
        uniform(batch, joints),
        uniform(batch, joints, 2) + 0.5,
        uniform(batch, 4, width),
        uniform(batch, joints, width),
    )
    teacher = TeacherOutput(
        uniform(batch, joints, rows, columns), uniform(batch, 4, width), uniform(batch, joints, width)
    )
    return student, teacher, uniform(batch, joints, 2), (uniform(batch, joints) > 0.3).to(dtype)


@pytest.fixture(scope="module")
def release(release_fixtures):
    numbers = json.loads((release_fixtures / "losses_small.json").read_text())
    inputs = {k: torch.tensor(v, dtype=torch.float64) for k, v in numbers["small_inputs"].items()}
    return inputs, numbers["small_results"]


def check(value, expected, *inputs_and_gradients, tolerance=1e-12):
    assert value.item() == pytest.approx(expected, rel=tolerance)
    for tensor, gradient in inputs_and_gradients:
        torch.testing.assert_close(tensor.grad, torch.as_tensor(gradient, dtype=torch.float64), atol=1e-12, rtol=1e-9)


def test_regression_equals_release(release):
    inputs, results = release
    predicted = inputs["pred"].clone().requires_grad_()
    loss = regression_loss(predicted, inputs["target"], inputs["target_weight"][..., 0])
    loss.backward()
    expected = results["smooth_l1_weighted"]
    check(loss, expected["value"], (predicted, expected["grads"][0]))
    unweighted = regression_loss(inputs["pred"], inputs["target"], torch.ones(2, 4, dtype=torch.float64))
    assert unweighted.item() == pytest.approx(results["smooth_l1_unweighted"]["value"], rel=1e-12)


def test_tokens_equal_release(release):
    inputs, results = release
    tokens = inputs["tokens_s"].clone().requires_grad_()
    loss = 5e-4 * token_loss(tokens, inputs["tokens_t"])
    loss.backward()
    expected = results["token_distil_w0.0005"]
    check(loss, expected["value"], (tokens, expected["grads"][0]))


def test_confidence_equals_release(release):
    inputs, results = release
    scores = inputs["score"][..., 0].clone().requires_grad_()
    weights = inputs["target_weight"][..., 0]
    loss = 0.01 * confidence_loss(scores, inputs["pred"], inputs["teacher_heatmap"], weights, released=True)
    loss.backward()
    expected = results["score_w0.01"]
    check(loss, expected["value"], (scores, torch.tensor(expected["grads"][0], dtype=torch.float64)[..., 0]))


def test_simulated_heatmap_equals_release_and_its_per_sample_reading(release):
    inputs, results = release
    keypoints, sigmas = inputs["pred"].clone().requires_grad_(), inputs["sigma"].clone().requires_grad_()
    weights = inputs["target_weight"][..., 0]
    expected = results["reg2hm"]
    loss = simulated_heatmap_loss(keypoints, sigmas, inputs["teacher_heatmap"], weights, released=True)
    loss.backward()
    check(loss, expected["value"], tolerance=1e-7)
    torch.testing.assert_close(keypoints.grad, torch.tensor(expected["grads"][0]).double(), atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(sigmas.grad, torch.tensor(expected["grads"][1]).double(), atol=1e-8, rtol=1e-6)
    per_sample = simulated_heatmap_loss(inputs["pred"], inputs["sigma"], inputs["teacher_heatmap"], weights)
    assert per_sample.item() == pytest.approx(expected["per_sample_reading"], rel=1e-7)
    maps, on_map = simulated_heatmaps(inputs["pred"], inputs["sigma"], (8, 6))
    torch.testing.assert_close(on_map, torch.tensor(expected["in_bounds_mask"]).double())
    shown = torch.tensor(expected["simulated_heatmaps"]).double()
    torch.testing.assert_close((maps * on_map[..., None, None]).reshape(shown.shape), shown, atol=1e-7, rtol=1e-6)


def test_heatmap_mse_equals_release(release):
    inputs, results = release
    maps = inputs["teacher_heatmap"].clone().requires_grad_()
    loss = HeatmapMSE()(maps, inputs["heatmap_target_for_joints_mse"], inputs["target_weight"][..., 0])
    loss.backward()
    expected = results["joints_mse_weight_NK1"]
    check(loss, expected["value"], (maps, expected["grads"][0]))


def test_simulated_heatmap_against_loops():
    """The formula in plain Python, one cell at a time."""
    student, teacher, _, weights = random_case()
    batch, joints, rows, columns = teacher.heatmaps.shape
    total = 0.0
    for n in range(batch):
        for k in range(joints):
            (x, y), (sx, sy) = student.keypoints[n, k].tolist(), student.sigmas[n, k].tolist()
            x, y = x * columns, y * rows
            for j in range(rows):
                for i in range(columns):
                    g = math.exp(-((i - x) ** 2 / (2 * (sx**2 + 1e-9)) + (j - y) ** 2 / (2 * (sy**2 + 1e-9))))
                    total += weights[n, k].item() * (g - teacher.heatmaps[n, k, j, i].item()) ** 2
    loss = simulated_heatmap_loss(student.keypoints, student.sigmas, teacher.heatmaps, weights)
    assert loss.item() == pytest.approx(total / (batch * joints * rows * columns), rel=1e-12)


def test_released_weighting_is_the_batch_broadcast():
    """Equal to the release's N x N broadcast, written out here."""
    student, teacher, _, weights = random_case(batch=4)
    maps, on_map = simulated_heatmaps(student.keypoints, student.sigmas, teacher.heatmaps.shape[-2:])
    assert on_map.all()
    broadcast = torch.stack(
        [
            ((maps[:, k] - teacher.heatmaps[:, k])[None] * weights[:, k, None, None, None]).square().mean()
            for k in range(5)
        ]
    ).mean()
    loss = simulated_heatmap_loss(student.keypoints, student.sigmas, teacher.heatmaps, weights, released=True)
    assert loss.item() == pytest.approx(broadcast.item(), rel=1e-12)


def test_unlabelled_joints_do_not_matter():
    student, teacher, keypoints, weights = random_case()
    weights[:, 2] = 0
    loss = DistillationLoss(visual_token=0, keypoint_token=0)
    before = loss(student, teacher, keypoints, weights)
    changed = student.keypoints.clone()
    changed[:, 2] = 0.9
    after = loss(student._replace(keypoints=changed), teacher, keypoints, weights)
    for term in before:
        assert after[term].item() == pytest.approx(before[term].item(), rel=1e-12)


def test_a_perfect_student_has_no_loss():
    draw = torch.Generator().manual_seed(1)
    keypoints = torch.rand(2, 3, 2, generator=draw, dtype=torch.float64) * 0.8 + 0.1
    # joints at cell centres, so that the cell that is read holds the peak
    keypoints = (keypoints * torch.tensor([12.0, 16.0])).round() / torch.tensor([12.0, 16.0]).double()
    sigmas = torch.full((2, 3, 2), 2.0, dtype=torch.float64)
    maps, _ = simulated_heatmaps(keypoints, sigmas, (16, 12))
    tokens = torch.rand(2, 3, 4, dtype=torch.float64)
    student = StudentOutput(keypoints, torch.ones(2, 3, dtype=torch.float64), sigmas, tokens, tokens)
    terms = DistillationLoss()(student, TeacherOutput(maps, tokens, tokens), keypoints, torch.ones(2, 3))
    assert set(terms) == {*TERMS, "total"}
    assert all(value.item() == pytest.approx(0, abs=1e-12) for value in terms.values())


def test_confidence_uses_the_gaussians_convention():
    """The map is read at the cell nearest to x W, clamped to the map, without a gradient to the position."""
    heatmaps = torch.arange(8 * 6, dtype=torch.float64).reshape(1, 1, 8, 6).requires_grad_()
    for (x, y), cell in {(0.5, 0.5): 4 * 6 + 3, (1.0, 1.0): 7 * 6 + 5, (0.0, 0.0): 0}.items():
        keypoint = torch.tensor([[[x, y]]], dtype=torch.float64, requires_grad=True)
        value = teacher_confidence(keypoint, heatmaps)
        assert value.item() == cell
        assert not value.requires_grad
    outside = torch.tensor([[[1.01, 0.5]]], dtype=torch.float64)
    assert teacher_confidence(outside, heatmaps).item() == 0


@pytest.mark.parametrize("term", TERMS)
def test_weights_scale_their_term_alone_and_zero_skips_it(term):
    case = random_case()
    alone = DistillationLoss(**dict.fromkeys(TERMS, 0.0) | {term: 2.0})
    terms = alone(*case)
    single = DistillationLoss(**dict.fromkeys(TERMS, 0.0) | {term: 1.0})(*case)
    assert terms[term].item() == pytest.approx(2 * single[term].item())
    assert terms["total"].item() == pytest.approx(terms[term].item())
    assert all(terms[name].item() == 0 for name in TERMS if name != term)
    assert alone.needs_teacher == (term != "regression")
    assert alone.trains_scores == (term == "confidence")


def test_regression_alone_needs_no_teacher():
    student, _, keypoints, weights = random_case()
    loss = DistillationLoss(visual_token=0, keypoint_token=0, confidence=0, simulated_heatmap=0)
    assert loss(student, None, keypoints, weights)["total"] > 0


def test_tokens_of_different_shape_raise_an_error():
    with pytest.raises(DistilPoseError, match=r"\(2, 2, 4\).*\(2, 2, 6\).*loss\.project_tokens=true"):
        DistillationLoss().set_teacher(0.1, TokenShape(2, 2, 4), TokenShape(2, 2, 6))
    with pytest.raises(DistilPoseError, match=r"loss\.visual_token=0 loss\.keypoint_token=0"):
        DistillationLoss().set_teacher(0.1, TokenShape(2, 2, 4), None)


def test_float32_under_mixed_precision():
    student, teacher, keypoints, weights = random_case(dtype=torch.float32)
    expected = DistillationLoss()(student, teacher, keypoints, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = DistillationLoss()(student, teacher, keypoints, weights)
    for name, value in terms.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-6)


@pytest.mark.slow
def test_compiles_to_the_same_numbers():
    case = random_case(dtype=torch.float32)
    loss = DistillationLoss()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)(*case)
    for name, value in loss(*case).items():
        assert compiled[name].item() == pytest.approx(value.item(), rel=1e-5)


def test_a_term_rises_between_two_shares_of_the_training():
    student, teacher, keypoints, weights = random_case()
    loss = DistillationLoss(simulated_heatmap=2.0, ramps={"simulated_heatmap": [0.25, 0.75]})
    plain = DistillationLoss(simulated_heatmap=2.0)(student, teacher, keypoints, weights)
    for progress, share in ((0.0, 0.0), (0.25, 0.0), (0.5, 0.5), (0.75, 1.0), (1.0, 1.0)):
        terms = loss(student, teacher, keypoints, weights, progress=progress)
        torch.testing.assert_close(terms["simulated_heatmap"], share * plain["simulated_heatmap"])
        torch.testing.assert_close(terms["visual_token"], plain["visual_token"])


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.5, 0.2]])
def test_the_shares_of_a_ramp_ascend(shares):
    with pytest.raises(DistilPoseError) as error:
        DistillationLoss(ramps={"confidence": shares})
    assert f"loss.ramps.confidence={shares}" in str(error.value)


def test_one_weight_is_above_zero():
    with pytest.raises(DistilPoseError, match=r"0.*loss\.regression=1"):
        DistillationLoss(*5 * [0.0])


@pytest.mark.parametrize("term", ["likelihood", "marginal", "divergence", "moment"])
def test_further_terms_are_computed_only_with_a_weight(term):
    student, teacher, keypoints, weights = random_case()
    assert term not in DistillationLoss()(student, teacher, keypoints, weights)
    loss = DistillationLoss(**{term: 0.5}).double()
    terms = loss(student, teacher, keypoints, weights)
    torch.testing.assert_close(terms["total"], sum(value for name, value in terms.items() if name != "total"))
    double_weight = DistillationLoss(**{term: 1.0}).double()
    double_weight.load_state_dict(loss.state_dict())
    torch.testing.assert_close(2 * terms[term], double_weight(student, teacher, keypoints, weights)[term])
    assert terms[term] != 0


def test_beta_makes_the_regression_l1():
    student, _, keypoints, weights = random_case()
    alone = dict.fromkeys(("visual_token", "keypoint_token", "confidence", "simulated_heatmap"), 0.0)
    terms = DistillationLoss(**alone, beta=0.0)(student, None, keypoints, weights)
    expected = ((student.keypoints - keypoints).abs() * weights[..., None]).mean()
    torch.testing.assert_close(terms["total"], expected)


def test_informed_maps_move_the_student_to_the_label():
    student, teacher, keypoints, weights = random_case()
    # the teacher predicts every joint in one corner, and the students are at the labels
    maps = torch.zeros_like(teacher.heatmaps)
    maps[..., 0, 0] = 1
    student = student._replace(keypoints=keypoints.clone().requires_grad_())
    for sigma, moves in ((0.0, True), (1.0, False)):
        loss = DistillationLoss(label_sigma=sigma, divergence=1.0, simulated_heatmap=0.0)
        divergence = loss(student, teacher._replace(heatmaps=maps), keypoints, weights)["divergence"]
        (gradient,) = torch.autograd.grad(divergence, student.keypoints)
        towards_corner = (gradient[weights > 0] > 0).double().mean()  # gradient descent lowers x and y
        assert (towards_corner > 0.95) == moves


def test_a_teachers_trust_replaces_the_weights():
    student, teacher, keypoints, weights = random_case()
    trust = torch.rand(weights.shape, dtype=weights.dtype).round()
    loss = DistillationLoss()
    trusted = loss(student, teacher._replace(trust=trust), keypoints, weights)
    as_labels = loss(student, teacher, keypoints, trust)
    for term in ("confidence", "simulated_heatmap"):
        torch.testing.assert_close(trusted[term], as_labels[term])
    torch.testing.assert_close(trusted["regression"], loss(student, teacher, keypoints, weights)["regression"])
    # the simulated-heat-map term squares its weights, but must not square the trust
    half = loss(student, teacher._replace(trust=0.5 * torch.ones_like(weights)), keypoints, weights)
    full = loss(student, teacher._replace(trust=torch.ones_like(weights)), keypoints, weights)
    for term in ("confidence", "simulated_heatmap"):
        torch.testing.assert_close(half[term], 0.5 * full[term])


def test_tokens_of_joints_that_the_teacher_does_not_know_are_left_out():
    student, teacher, keypoints, weights = random_case()
    known = torch.tensor([1.0, 0, 1, 1, 0], dtype=weights.dtype)
    terms = DistillationLoss()(student, teacher._replace(known=known), keypoints, weights)
    tokens = ((student.keypoint_tokens - teacher.keypoint_tokens).square().mean(-1) * known).mean()
    torch.testing.assert_close(terms["keypoint_token"], 5e-4 * tokens)


def test_the_likelihood_reads_sigmas_in_cells_of_the_students_map():
    student, teacher, keypoints, weights = random_case()
    loss = DistillationLoss(likelihood=1.0).double()
    size = tuple(teacher.heatmaps.shape[-2:])
    expected = loss.flow(student.keypoints, student.sigmas, keypoints, weights, size)
    torch.testing.assert_close(loss(student, teacher, keypoints, weights, size)["likelihood"], expected)


def test_maps_that_disagree_with_the_label_are_left_out():
    keypoints = torch.tensor([[[0.25, 0.5], [0.5, 0.5], [0.75, 0.25]]], dtype=torch.float64)
    maps, _ = simulated_heatmaps(keypoints, torch.ones_like(keypoints), (16, 12))
    maps = 0.8 * maps
    maps[:, 1] = maps[:, 1].roll(4, dims=-1)  # wrong by four cells
    maps[:, 2] = maps[:, 2].roll(4, dims=-1)  # just as wrong, for a joint without a label
    weights = torch.tensor([[1.0, 1, 0]], dtype=torch.float64)
    student = random_case(batch=1, joints=3, rows=16, columns=12)[0]
    teacher = TeacherOutput(maps, trust=torch.ones(1, 3, dtype=torch.float64))
    tokens = {"visual_token": 0, "keypoint_token": 0}

    def term(agreement, trust):
        loss = DistillationLoss(**tokens, agreement=agreement)
        return loss(student, teacher._replace(trust=trust), keypoints, weights)["simulated_heatmap"]

    all_joints, without_second = torch.ones(1, 3, dtype=torch.float64), torch.tensor([[1.0, 0, 1]], dtype=torch.float64)
    assert term(0.5, all_joints) == term(0.0, without_second) != term(0.0, all_joints)

    # a joint is labelled outside the crop, so the teacher's map inside the crop is wrong
    loss = DistillationLoss(**tokens, agreement=0.5)
    outside = loss(student, teacher, keypoints, weights, labelled=torch.ones_like(weights))["simulated_heatmap"]
    assert outside == term(0.0, torch.tensor([[1.0, 0, 0]], dtype=torch.float64))
