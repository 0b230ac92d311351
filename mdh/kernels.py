"""Compiles the numeric kernels once per machine: ``python -m mdh.kernels``. Workers would do it at their first start."""

from __future__ import annotations


def compile_all() -> None:
    """Compiles or loads every kernel."""
    import numpy as np

    from connectors.head_end import formats
    from schemas import packing
    from streams.determinants import kernels as determinants
    from streams.insights import kernel
    from streams.vee import clean

    packing.pack(np.zeros(1, np.int64))
    formats.warm()
    determinants.warm()
    kernel.warm()
    clean.warm()


if __name__ == "__main__":
    compile_all()
