"""Packaging. The configs of ``configs/dos`` travel inside the wheel as ``dos_plugin/configs``."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "dos_plugin/__init__.py").read_text())[1]

DEMO = [
    "mmengine-lite>=0.10.7",
    # Young: its interfaces still move. It wants torch 2.8 and numpy 2, the package itself less.
    "torch-pointcloud==0.0.18",
    "spconv>=2.3.8",
    "tensorboardX>=2.6",
    "matplotlib>=3.8",
    "jinja2>=3.1",
    "tqdm>=4.66",
    "pyyaml>=6.0",
    "plyfile>=1.0",
    "python-neo-lzf>=0.3",  # compressed .pcd
    "psutil>=5.9",
]
HUB = ["huggingface_hub>=1.0", "safetensors>=0.4"]
# Scan files of ingest beyond those that the demo's packages read.
LAS = ["laspy[lazrs]>=2.5"]
ROS = ["rosbags>=0.10"]
ARGOVERSE = ["pyarrow>=15"]
DOCS = ["mkdocs-material>=9.6", "griffelib>=2"]

setup(
    name="dos-plugin",
    version=VERSION,
    description="DOS self-supervised pretraining of 3D backbones, as a plugin for Pointcept",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    packages=[
        *find_packages(include=["dos_plugin", "dos_plugin.*"]),
        "dos_plugin.configs",
    ],
    package_dir={"dos_plugin.configs": "configs/dos"},
    package_data={
        "dos_plugin": ["py.typed"],
        "dos_plugin.configs": ["*.py", "*/*.py", "*/*/*.yaml"],
        "dos_plugin.drawing": ["*.html", "*.js"],
        "dos_plugin.reports": ["*.html"],
    },
    install_requires=["torch>=2.4", "numpy>=1.24"],
    extras_require={
        "demo": DEMO,
        "hub": HUB,
        "las": LAS,
        "ros": ROS,
        "argoverse": ARGOVERSE,
        "ingest": [*LAS, *ROS, *ARGOVERSE],
        "docs": DOCS,
        "host": ["spconv-cu120", "torch-scatter", "addict", "SharedArray"],
        "dev": [
            *[
                "build",
                "pytest>=8",
                "pytest-xdist>=3.5",
                "hypothesis>=6.100",
                "einops",
                "POT",
                "scipy",
                *HUB,
            ],
            *[*LAS, *ROS, *ARGOVERSE, "pypcd4>=1.4"],
            *["nbclient>=0.10", "ipykernel>=6.29"],  # docs/walk.ipynb
            *["ruff", "mypy", "import-linter>=2.5", *DOCS],
            # Comes with torch for CUDA; without a GPU its interpreter tests the kernels.
            "triton>=3.2; sys_platform == 'linux' and platform_machine == 'x86_64'",
        ],
    },
    entry_points={"console_scripts": ["dos-plugin=dos_plugin.cli:main"]},
)
