"""PEP 517/660 build backend: setuptools, with `pilothouse._pb` generated first.

The generated package is not in git but belongs into every wheel, sdist and editable install.
The generator's requirements are asked for only when it has to run. Nothing here may need them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - a backend has all of setuptools' hooks

import gen_protos

if TYPE_CHECKING:
    from collections.abc import Mapping

    _Config = Mapping[str, str | list[str] | None] | None


def _generator_requirements() -> list[str]:
    return [] if gen_protos.is_current() else gen_protos.requirements()


def _ensure_protos() -> None:
    if not gen_protos.is_current():
        gen_protos.generate()


def get_requires_for_build_wheel(config_settings: _Config = None) -> list[str]:
    """Return setuptools' requirements and, if it must run, the generator's."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_generator_requirements()]


def get_requires_for_build_sdist(config_settings: _Config = None) -> list[str]:
    """Return setuptools' requirements and, if it must run, the generator's."""
    return [*build_meta.get_requires_for_build_sdist(config_settings), *_generator_requirements()]


def get_requires_for_build_editable(config_settings: _Config = None) -> list[str]:
    """Return setuptools' requirements and, if it must run, the generator's."""
    return [
        *build_meta.get_requires_for_build_editable(config_settings),
        *_generator_requirements(),
    ]


def build_wheel(
    wheel_directory: str, config_settings: _Config = None, metadata_directory: str | None = None
) -> str:
    """Build a wheel holding the generated package."""
    _ensure_protos()
    return str(build_meta.build_wheel(wheel_directory, config_settings, metadata_directory))


def build_sdist(sdist_directory: str, config_settings: _Config = None) -> str:
    """Build an sdist holding the generated package, so that its wheels need no generator."""
    _ensure_protos()
    return str(build_meta.build_sdist(sdist_directory, config_settings))


def build_editable(
    wheel_directory: str, config_settings: _Config = None, metadata_directory: str | None = None
) -> str:
    """Build an editable wheel; the generated package lands in the source tree."""
    _ensure_protos()
    return str(build_meta.build_editable(wheel_directory, config_settings, metadata_directory))
