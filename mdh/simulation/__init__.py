"""A seeded head end: realistic loads, known faults, the same bytes for the same seed on every machine.

Whole numbers only: no floating point and no generator state, so any meter and day can be made alone.
"""
