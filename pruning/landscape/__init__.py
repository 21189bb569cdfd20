"""What the loss looks like around a network's weights: curvature, planes, noise.

EKG (Lee & Song 2022) looks for sub-networks where it is smooth: its poster reports that the condition number
of the loss at a searched sub-network says more of what fine-tuning will reach (ρ = 0.73) than the loss itself
(ρ = 0.32). Neither the poster nor its program defines the number; here it is |λ_min| / |λ_max| of the
Hessian, the ratio by which Li et al. 2018 ("Visualizing the Loss Landscape of Neural Nets") tell how far from
convex a loss is. Smaller is smoother.
"""

from secateur.pruning.landscape.curvature import Spectrum, lanczos, spectrum
from secateur.pruning.landscape.loss_at import LossAt
from secateur.pruning.landscape.surface import directions, line, noise, plane

__all__ = ["LossAt", "Spectrum", "directions", "lanczos", "line", "noise", "plane", "spectrum"]
