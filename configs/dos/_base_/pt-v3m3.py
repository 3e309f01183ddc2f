"""DOS with the encoder of PTv3, mode 3 (rotary positions), in the size of the host's Utonia.

Mode 2 with attention that knows where its points are: queries and keys are turned by the
coordinates, in waves from 2 pi metres up. Utonia brings outdoor scans to a fifth of their size
first, so that its waves are 31, 68 and 146 m long; scans keep their size here, and rope_base=100
makes them 6, 29 and 135 m. Our choice, and not measured. For rooms take Utonia's 10.

Everything else, flash-attn and the rates included, is as in pt-v3m2.py. This encoder keeps 1.13
times as much for the backward pass as that one, counted as there.
"""

_base_ = ["pt-v3m2.py"]

model = dict(
    backbone=dict(
        type="PT-v3m3",
        enc_channels=(54, 108, 216, 432, 576),  # 18 a head: must be a multiple of 6
        enc_num_head=(3, 6, 12, 24, 32),
        rope_base=100,
        shift_coords=None,
        # of the student alone, anew in every block: positions stretched by up to this much
        jitter_coords=1.1,  # along each axis
        rescale_coords=1.2,  # along all of them
    ),
    backbone_out_channels=1224,  # 216 + 432 + 576
)
