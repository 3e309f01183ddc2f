"""DOS self-supervised pretraining of 3D backbones (AAAI-26, arXiv 2512.11465) as a plugin."""

__version__ = "0.1.0"
