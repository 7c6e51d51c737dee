"""Puts the configs of `conf/` into the installed library, as `lit_mbrl/conf`; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["lit_mbrl*"]), "lit_mbrl.conf"], package_dir={"lit_mbrl.conf": "conf"})
