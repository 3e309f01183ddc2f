"""
Fine-tuning of DOS on nuScenes with 1 % of the labels: 281 of 28,130 scans.

Length: 19,900 steps. Fewer labels get more epochs; the factors to 50, the epochs with all labels,
are those of BEVContrast (1000, 500, 100, 50 and 30 epochs for 0.1, 1, 10, 50 and 100 %).
Write the split first, in the root of the host; other seeds are other folders:
    dos-plugin split data/nuscenes --fraction 0.01 --seed 0
    sh scripts/train.sh -g 2 -d dos -c semseg-dos-v1m1-2c-nuscenes-1pct-ft -n NAME -w WEIGHT
"""

_base_ = ["semseg-dos-v1m1-0c-nuscenes-ft.py"]

save_path = "exp/dos/semseg-dos-v1m1-2c-nuscenes-1pct-ft"

epoch = 850
eval_epoch = 50
data = dict(train=dict(data_root="data/nuscenes/few/0.01-seed0"))
