"""What to learn from: teachers and losses."""

from distillation.bank import MemoryBank, choose_teachers
from distillation.losses import cross_entropy, kept_teachers, kl_divergence, labels_only, two_view_knowledge

__all__ = [
    "MemoryBank",
    "choose_teachers",
    "cross_entropy",
    "kept_teachers",
    "kl_divergence",
    "labels_only",
    "two_view_knowledge",
]
