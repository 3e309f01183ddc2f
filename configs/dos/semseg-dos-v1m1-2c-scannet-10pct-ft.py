"""
Fine-tuning of DOS on ScanNet v2 with 10 % of the labels: 120 of 1,201 scenes.

Length: 13,000 steps. Fewer labels get more epochs; the factors to 800, the epochs with all labels,
are those of BEVContrast (1000, 500, 100, 50 and 30 epochs for 0.1, 1, 10, 50 and 100 %).
Write the split first, in the root of the host; other seeds are other folders:
    dos-plugin split data/scannet --fraction 0.1 --seed 0
    sh scripts/train.sh -g 2 -d dos -c semseg-dos-v1m1-2c-scannet-10pct-ft -n NAME -w WEIGHT
"""

_base_ = ["semseg-dos-v1m1-0c-scannet-ft.py"]

save_path = "exp/dos/semseg-dos-v1m1-2c-scannet-10pct-ft"

epoch = 2600
eval_epoch = 100
data = dict(train=dict(data_root="data/scannet/few/0.1-seed0"))
