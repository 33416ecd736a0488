"""The exported graph: a model with its decoding, traced for all formats, with batch normalisation folded."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from distilpose.data.codec import decode_heatmaps
from distilpose.exporting.onnx_file import INPUT
from distilpose.models.model import PoseModel

OUTPUTS = {"student": ("keypoints", "scores", "sigmas"), "teacher": ("keypoints", "scores", "heatmaps")}
MAX_BATCH = 1024  # crops


class ExportedPose(nn.Module):
    """A model as it is exported: tensors in and out, with a teacher's heat maps decoded.

    Args:
        model: a student or a teacher in eval mode.
        normalise: whether crops are (N, H, W, 3) uint8 RGB in 0..255 instead of (N, 3, H, W) normalised float32.
        extra: whether a student's sigmas, or a teacher's heat maps, follow keypoints and scores.
    """

    def __init__(self, model: PoseModel, normalise: bool, extra: bool):
        super().__init__()
        self.model, self.normalise, self.extra = model, normalise, extra
        self.register_buffer("mean", torch.tensor(model.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(model.std).view(3, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Keypoints (N, K, 2) in [0, 1] of the crop, scores (N, K) and the extra output, all float32."""
        if self.normalise:
            images = (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        output = self.model(images.to(next(self.model.parameters()).dtype))
        if self.model.kind == "student":
            # untrained scores count as 1, as in evaluation
            scores = output.scores if self.model.scores_trained else torch.ones_like(output.scores)
            outputs = (output.keypoints, scores, output.sigmas)
        else:
            outputs = (*decode_heatmaps(output.heatmaps), output.heatmaps)
        return outputs if self.extra else outputs[:2]


def output_names(kind: str, extra: bool) -> list[str]:
    """Names of the outputs of an exported student or teacher, in order."""
    return list(OUTPUTS[kind] if extra else OUTPUTS[kind][:2])


def trace(model: PoseModel, normalise: bool, extra: bool, half: bool = False) -> ExportedProgram:
    """Trace a model for any batch size, with its batch normalisation folded.

    Args:
        model: in eval mode on the CPU; it is not changed.
        normalise: as in `ExportedPose`.
        extra: as in `ExportedPose`.
        half: whether backbone and encoder compute in float16. The head, whose outputs are coordinates, stays in float32.
    """
    exported = ExportedPose(copy.deepcopy(model), normalise, extra).eval()
    weights = {name: value.detach().clone() for name, value in exported.state_dict().items()}
    if half:
        exported.model.half()
        exported.model.head.float()
    height, width = model.input_size
    images = torch.zeros(2, height, width, 3, dtype=torch.uint8) if normalise else torch.zeros(2, 3, height, width)
    with torch.no_grad():
        program = torch.export.export(
            exported, (images,), dynamic_shapes={INPUT: {0: Dim("batch", min=1, max=MAX_BATCH)}}, strict=False
        )
    fold_batch_norm(program, weights)
    for node in program.graph.nodes:  # stack traces contain paths of this machine and would be saved
        node.meta.pop("stack_trace", None)
    return program


def fold_batch_norm(program: ExportedProgram, weights: Mapping[str, Tensor]) -> int:
    """Fold each batch normalisation into the convolution before it, if nothing else uses the convolution's output.

    The new weights are computed in float64 from `weights`, so that a float16 graph is rounded only once.

    Args:
        program: traced model in eval mode; changed in place.
        weights: the weights of the model in float32.

    Returns:
        Number of folded layers.
    """
    signature, graph = program.graph_signature, program.graph
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    placeholders = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    folded = 0
    for node in list(graph.nodes):
        if node.target != torch.ops.aten.batch_norm.default:
            continue
        convolution, scale, shift, mean, variance, _, _, epsilon = node.args[:8]
        if convolution.target != torch.ops.aten.conv2d.default or len(convolution.users) > 1 or scale is None:
            continue
        kernel, bias = convolution.args[1], convolution.args[2] if len(convolution.args) > 2 else None
        if len(kernel.users) > 1 or len(shift.users) > 1:
            continue
        weight, gain, offset, centre, spread = (
            weights[names[part.name]].double() for part in (kernel, scale, shift, mean, variance)
        )
        factor = gain / (spread + epsilon).sqrt()
        start = 0 if bias is None else weights[names[bias.name]].double()
        results = {kernel: weight * factor.view(-1, 1, 1, 1), shift: offset + (start - centre) * factor}
        for part, value in results.items():
            kept = program.state_dict[names[part.name]]
            program.state_dict[names[part.name]] = nn.Parameter(value.to(kept.dtype), requires_grad=False)
        # the convolution takes over the bias of the normalisation
        convolution.args = (*convolution.args[:2], shift, *convolution.args[3:])
        node.replace_all_uses_with(convolution)
        graph.erase_node(node)
        folded += 1
    unused = {name for name, node in placeholders.items() if name in names and not node.users}
    signature.input_specs = [spec for spec in signature.input_specs if spec.arg.name not in unused]
    for name in unused:
        graph.erase_node(placeholders[name])
        program.state_dict.pop(names[name], None)
        program.constants.pop(names[name], None)
    program.graph_module.recompile()
    return folded
