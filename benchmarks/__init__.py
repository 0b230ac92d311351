"""Measurements. Every figure is a ratio measured in turn in one run, with equal results checked first."""
