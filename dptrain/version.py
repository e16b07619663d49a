"""Which program this is, and what it computes with: part of what decides the bytes."""

from importlib.metadata import version

__version__ = version("dptrain")


def software() -> str:
    """Return the versions of dptrain, NumPy and the BLAS, and the BLAS's name for this CPU."""
    import numpy
    import threadpoolctl

    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    blas = [f"{p['internal_api']} {p['version']} ({p.get('architecture', '?')})" for p in pools]
    return ", ".join([f"dptrain {__version__}", f"NumPy {numpy.__version__}", *blas])
