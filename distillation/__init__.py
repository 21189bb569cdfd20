"""What to learn from: teachers and losses."""

from distillation.bank import MemoryBank, bank_bytes, choose_teachers, write_bank
from distillation.basics import cross_entropy, kl_divergence, labels_only
from distillation.ekg import kept_teachers, two_view_knowledge
from distillation.features import view
from distillation.filters import Filtered, kept_per_sample
from distillation.lesson import Lesson, for_lesson, lesson_objective, lesson_terms
from distillation.loss import Loss
from distillation.registry import build, get_loss, list_losses, register
from distillation.teachers import Banked, Ensemble, Live, Teacher, ensemble

__all__ = [
    "Banked",
    "Ensemble",
    "Filtered",
    "Lesson",
    "Live",
    "Loss",
    "MemoryBank",
    "Teacher",
    "bank_bytes",
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
    "two_view_knowledge",
    "view",
    "write_bank",
]
