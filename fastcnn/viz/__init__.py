"""Plots."""

from .curves import curve_csv, curve_svg, save_curves

__all__ = ["curve_csv", "curve_svg", "save_curves"]
