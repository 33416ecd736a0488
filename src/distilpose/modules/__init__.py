"""LightningModules: `HeatmapModule` trains a teacher, `DistillationModule` a student.

Teachers and their loaders are exported here too, because saved configurations name them by these paths.
"""

from distilpose.modules.distillation import DistillationModule
from distilpose.modules.heatmap import HeatmapModule
from distilpose.teachers.blazepose import load_blazepose
from distilpose.teachers.check import check_teacher
from distilpose.teachers.frozen import FrozenTeacher, load_teacher
from distilpose.teachers.labels import LabelTeacher
from distilpose.teachers.module import load_module
from distilpose.teachers.onnx import load_onnx
from distilpose.teachers.recorded import RecordedTeacher, load_recorded
from distilpose.teachers.several import load_several
from distilpose.teachers.vitpose import load_vitpose

__all__ = [
    "DistillationModule",
    "FrozenTeacher",
    "HeatmapModule",
    "LabelTeacher",
    "RecordedTeacher",
    "check_teacher",
    "load_blazepose",
    "load_module",
    "load_onnx",
    "load_recorded",
    "load_several",
    "load_teacher",
    "load_vitpose",
]
