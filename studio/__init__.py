"""Duckrabbit: a studio for merging, training, bending and judging Stable-Diffusion models."""

__version__ = "0.1.0"
