"""What a network of another maker is shown, and what is read from it."""

from __future__ import annotations

import pytest
import torch
from dots import FACE, SMALL, make_network, views, write_persons

from distilpose import create_model
from distilpose.errors import DistilPoseError
from distilpose.outputs import IMAGENET_MEAN, IMAGENET_STD
from distilpose.teachers.module import ModuleNetwork
from distilpose.teachers.network import NetworkTeacher
from distilpose.teachers.sampling import peak_width, sample_maps


def normalised(pixels):
    mean, std = (torch.tensor(value)[:, None, None] for value in (IMAGENET_MEAN, IMAGENET_STD))
    return (pixels - mean) / std


def shown(size, own, pad=False, pixels=None):
    """Pixels that a network of `own` crops is shown of a white crop of `size`."""
    network = ModuleNetwork(lambda crops: torch.zeros(len(crops), 3, own[0] // 4, own[1] // 4), "n", own, FACE.names)
    teacher = NetworkTeacher(network, pad=pad)
    teacher.set_student(create_model("student_xs", skeleton=FACE, input_size=size, **SMALL))
    crops = normalised(torch.ones(1, 3, *size) if pixels is None else pixels)
    mean, std = (torch.tensor(value)[:, None, None] for value in (network.mean, network.std))
    return teacher._crops(crops) * std + mean


@pytest.mark.parametrize("size", [(64, 48), (128, 96), (256, 192), (512, 384)])
def test_a_white_crop_is_white_to_its_edges(size):
    torch.testing.assert_close(shown(size, (256, 192)), torch.ones(1, 3, 256, 192), atol=1e-5, rtol=0)


def test_bars_are_black_and_the_crop_between_them_white():
    pixels = shown((256, 192), (256, 256), pad=True)
    torch.testing.assert_close(pixels[..., 32:-32], torch.ones(1, 3, 256, 192), atol=1e-5, rtol=0)
    assert pixels[..., :32].abs().max() < 1e-6
    assert pixels[..., -32:].abs().max() < 1e-6


def test_a_crop_of_its_own_size_is_not_resampled():
    pixels = torch.rand(1, 3, 256, 192)
    torch.testing.assert_close(shown((256, 192), (256, 192), pixels=pixels), pixels, atol=1e-6, rtol=0)


def test_it_keeps_its_precision_when_a_training_is_in_bf16(tmp_path):
    batch, _ = views(*write_persons(tmp_path, count=2), (128, 96), False, 0.0)
    teacher = NetworkTeacher(make_network("release"))
    teacher.set_student(create_model("student_xs", skeleton=FACE, input_size=(128, 96), **SMALL))
    before = teacher(batch).heatmaps
    teacher.move(lambda tensor: tensor.to(torch.bfloat16))
    torch.set_default_dtype(torch.bfloat16)  # as Lightning does for bf16-true
    try:
        after = teacher(batch._replace(image=batch.image.bfloat16()))
    finally:
        torch.set_default_dtype(torch.float32)
    assert after.heatmaps.dtype == torch.float32
    assert (after.heatmaps - before).abs().max() < 0.05  # the crops are rounded


def test_an_empty_map_does_not_change_the_others():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(48.0), indexing="ij")
    maps = torch.exp(-((x - 20.3) ** 2 + (y - 30.6) ** 2) / 8)[None, None]
    cells = torch.tensor([[4.0, 0, 0], [0, 4, 0]])[None]
    alone = sample_maps(maps, cells, peak_width(maps), (16, 12), 1.0)
    both = torch.cat([maps, torch.zeros_like(maps)])
    together = sample_maps(both, cells.expand(2, -1, -1), peak_width(both), (16, 12), 1.0)
    assert torch.equal(together[:1], alone)


@pytest.mark.parametrize(
    ("output", "facts"),
    [
        (lambda crops: {"maps": crops}, "dict"),
        (lambda crops: None, "NoneType"),
        (lambda crops: crops.half() @ crops, "float32"),
    ],
)
def test_other_outputs_are_one_sentence(output, facts):
    with pytest.raises(DistilPoseError, match=facts) as error:
        ModuleNetwork(output, "mine", (64, 48))
    assert "\n" not in str(error.value)


def test_files_of_torch_are_modules_too(tmp_path):
    """A scripted module, as in the documentation, and an exported program lack some methods of modules."""
    crops = torch.rand(2, 3, 64, 48)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 17, 4, stride=4), torch.nn.Dropout())
    torch.jit.trace(network.eval(), crops).save(tmp_path / "pose.pt")
    batch = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(network, (crops,), dynamic_shapes=batch).module()
    for module in (torch.jit.load(tmp_path / "pose.pt").train(), exported):
        teacher = NetworkTeacher(ModuleNetwork(module, "mine", (64, 48)))
        teacher.move(lambda tensor: tensor.cpu())
        torch.testing.assert_close(teacher.network(crops).heatmaps, network(crops).clamp(min=0).detach())
        assert len(teacher.network.about["sha256"]) == 64


def test_a_function_whose_tensors_stay_on_the_cpu():
    inner = torch.nn.Conv2d(3, 17, 4, stride=4)

    def stays(crops):
        if crops.device != inner.weight.device:  # as torch says it on a GPU; every machine has the device meta
            raise RuntimeError("Expected all tensors to be on the same device")
        return inner(crops)

    network = ModuleNetwork(stays, "mine", (64, 48))
    with pytest.raises(DistilPoseError, match=r"mine .*meta.*same device"):
        network(torch.empty(1, 3, 64, 48, device="meta"))


def test_simcc_of_a_network_that_was_trained_on_crops_by_udp():
    """Its bins are pixels of the crop in any case; the crop reaches from the first pixel's centre to the last's."""

    def simcc(crops):
        return torch.zeros(len(crops), 17, 384), torch.zeros(len(crops), 17, 512)

    ratio, udp = (ModuleNetwork(simcc, "mine", (256, 192), rule=rule).convention for rule in ("ratio", "udp"))
    assert (ratio.stride, ratio.unbiased) == (udp.stride, False) == ((4.0, 4.0), not udp.unbiased)


def test_other_names_are_another_network():
    """As one of several it is recorded under the names of them all, which do not tell whose they are."""
    module, names = torch.nn.Conv2d(3, 3, 4, stride=4), ["nose", "left_eye", "right_eye"]
    one, other = (ModuleNetwork(module, "mine", (64, 48), joints).about for joints in (names, names[::-1]))
    assert one != other


def test_other_weights_are_another_network():
    one, same, other = (torch.nn.Conv2d(3, 17, 4, stride=4) for _ in range(3))
    same.load_state_dict(one.state_dict())
    digests = [ModuleNetwork(module, "mine", (64, 48)).about["sha256"] for module in (one, same, other)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_layers_are_part_of_the_digest():
    """They keep their weights in tuples, beside their type."""
    digests = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        layer = torch.nn.Sequential(torch.nn.Conv2d(3, 17, 4, stride=4), torch.nn.Linear(12, 12))
        quantised = torch.ao.quantization.quantize_dynamic(layer, {torch.nn.Linear})
        torch.nn.init.zeros_(quantised[0].weight)
        torch.nn.init.zeros_(quantised[0].bias)
        digests.append(ModuleNetwork(quantised, "mine", (64, 48)).about["sha256"])
    assert digests[0] == digests[1] != digests[2]
