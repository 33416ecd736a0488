"""LightningModules: `HeatmapModule` trains a teacher, `DistillationModule` a student."""

from distilpose.modules.distillation import DistillationModule
from distilpose.modules.heatmap import HeatmapModule
from distilpose.modules.labels import LabelTeacher
from distilpose.modules.recorded import RecordedTeacher, load_blazepose, load_recorded
from distilpose.modules.teacher import FrozenTeacher, load_teacher
from distilpose.modules.teacher_check import check_teacher

__all__ = [
    "DistillationModule",
    "FrozenTeacher",
    "HeatmapModule",
    "LabelTeacher",
    "RecordedTeacher",
    "check_teacher",
    "load_blazepose",
    "load_recorded",
    "load_teacher",
]
