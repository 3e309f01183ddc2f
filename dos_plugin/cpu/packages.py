"""The table of packages the host imports, and what stands in for them where they are absent.

Packages whose absence the host handles itself (MinkowskiEngine, ocnn, ...) are not listed. Neither
are those without which nothing runs at all: they are in ``REQUIRED``.
"""

from dataclasses import dataclass, field

# import name -> name for pip; pure Python or with CPU wheels, so there is no reason to fake them.
REQUIRED = {
    "addict": "addict",
    "packaging": "packaging",
    "PIL": "pillow",
    "scipy": "scipy",
    "spconv": "spconv",
    "tensorboardX": "tensorboardX",
    "tqdm": "tqdm",
    "yapf": "yapf",
}


@dataclass(frozen=True)
class Package:
    """One package that the host imports at module level.

    Attributes:
        name: import name.
        advice: what to do where a call is refused.
        provides: module of the package -> (module of ours, names taken from it).
        cuda_only: an installed copy is of no use without CUDA, so it is replaced as well.
    """

    name: str
    advice: str
    provides: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    cuda_only: bool = False


_LAYERS = ("dos_plugin.cpu.layers", ("DropPath", "trunc_normal_"))

# In this order they are tried, so what others import comes first.
PACKAGES = (
    Package("torchvision", "pip install the torchvision build that belongs to your torch"),
    Package(
        "pointops",
        "choose a model and hooks that do not need it, or run on a machine with CUDA",
        {
            "pointops": (
                "dos_plugin.cpu.pointops",
                (
                    "farthest_point_sampling",
                    "grouping",
                    "interpolation",
                    "knn_query",
                    "knn_query_and_group",
                ),
            )
        },
        cuda_only=True,
    ),
    Package(
        "flash_attn",
        "set enable_flash=False in the backbone, or run on a machine with CUDA",
        {"flash_attn": ("dos_plugin.cpu.flash", ("flash_attn_varlen_qkvpacked_func",))},
        cuda_only=True,
    ),
    Package(
        "torch_scatter",
        "pip install torch-scatter (compiles for some minutes)",
        {
            "torch_scatter": (
                "dos_plugin.cpu.scatter",
                (
                    "scatter",
                    "scatter_add",
                    "scatter_max",
                    "scatter_mean",
                    "scatter_min",
                    "scatter_softmax",
                    "scatter_sum",
                    "segment_coo",
                    "segment_csr",
                ),
            )
        },
    ),
    Package(
        "torch_cluster",
        "pip install torch-cluster (compiles for some minutes)",
        {"torch_cluster": ("dos_plugin.cpu.cluster", ("grid_cluster", "knn"))},
    ),
    Package(
        "torch_geometric",
        "pip install torch-geometric",
        {
            "torch_geometric.nn.pool": ("dos_plugin.cpu.cluster", ("voxel_grid",)),
            "torch_geometric.utils": ("dos_plugin.cpu.cluster", ("scatter",)),
        },
    ),
    Package(
        "timm",
        "pip install timm",
        {"timm.layers": _LAYERS, "timm.models.layers": _LAYERS},
    ),
    Package("transformers", "pip install transformers"),
    Package("peft", "pip install peft"),
    Package("wandb", "set enable_wandb=False, or pip install wandb"),
    Package("open3d", "pip install open3d"),
    Package("einops", "pip install einops"),
    Package("h5py", "pip install h5py"),
    Package("SharedArray", "set cache=False in the dataset, or pip install SharedArray"),
    Package(
        "termcolor",
        "pip install termcolor",
        {"termcolor": ("dos_plugin.cpu.text", ("colored",))},
    ),
)
