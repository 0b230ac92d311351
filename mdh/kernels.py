"""Compiles the numeric kernels once per machine: ``python -m mdh.kernels``. Workers would do it at their first start."""

from __future__ import annotations


def compile_all() -> None:
    """Compiles or loads every kernel."""
    from connectors.head_end import formats
    from streams.determinants import kernels as determinants
    from streams.insights import kernel
    from streams.vee import clean

    formats.warm()
    determinants.warm()
    kernel.warm()
    clean.warm()


if __name__ == "__main__":
    compile_all()
