"""Searches for a sub-network: EKG, NetAdapt, annealing."""
