"""What to learn from: teachers and losses."""

from secateur.distillation.bank import MemoryBank, bank_into, choose_teachers, write_bank
from secateur.distillation.basics import cross_entropy, kl_divergence, labels_only
from secateur.distillation.distiller import Distiller
from secateur.distillation.features import view
from secateur.distillation.filters import Filtered, kept_per_sample, kept_teachers
from secateur.distillation.lesson import Lesson, for_lesson, lesson_objective, lesson_terms
from secateur.distillation.loss import Loss, build, get_loss, list_losses, register
from secateur.distillation.teachers import Banked, Ensemble, Live, Teacher, ensemble

__all__ = [
    "Banked",
    "Distiller",
    "Ensemble",
    "Filtered",
    "Lesson",
    "Live",
    "Loss",
    "MemoryBank",
    "Teacher",
    "bank_into",
    "build",
    "choose_teachers",
    "cross_entropy",
    "ensemble",
    "for_lesson",
    "get_loss",
    "kept_per_sample",
    "kept_teachers",
    "kl_divergence",
    "labels_only",
    "lesson_objective",
    "lesson_terms",
    "list_losses",
    "register",
    "view",
    "write_bank",
]
