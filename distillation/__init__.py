"""What to learn from: teachers and losses."""

from distillation.bank import MemoryBank, choose_teachers
from distillation.basics import cross_entropy, kl_divergence, labels_only
from distillation.ekg import kept_teachers, two_view_knowledge
from distillation.loss import Loss, build, get_loss, list_losses, register

__all__ = [
    "Loss",
    "MemoryBank",
    "build",
    "choose_teachers",
    "cross_entropy",
    "get_loss",
    "kept_teachers",
    "kl_divergence",
    "labels_only",
    "list_losses",
    "register",
    "two_view_knowledge",
]
