"""Pilothouse: an Istio-compatible service-mesh control plane."""

from typing import Final

__version__: Final = "0.1.0"
