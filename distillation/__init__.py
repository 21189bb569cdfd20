"""What to learn from: teachers and losses."""

from distillation.bank import MemoryBank, choose_teachers
from distillation.basics import cross_entropy, kl_divergence, labels_only
from distillation.ekg import kept_teachers, two_view_knowledge
from distillation.features import view
from distillation.lesson import Lesson, for_lesson, lesson_loss
from distillation.loss import Loss, build, get_loss, list_losses, register
from distillation.teachers import Banked, Ensemble, Live, Teacher, ensemble

__all__ = [
    "Banked",
    "Ensemble",
    "Lesson",
    "Live",
    "Loss",
    "MemoryBank",
    "Teacher",
    "build",
    "choose_teachers",
    "cross_entropy",
    "ensemble",
    "for_lesson",
    "get_loss",
    "kept_teachers",
    "kl_divergence",
    "labels_only",
    "lesson_loss",
    "list_losses",
    "register",
    "two_view_knowledge",
    "view",
]
