"""20 % of the labels of nuScenes, for scans and for the objects that are pasted into them.

Write the two files once, from those of the host's create_data.py:
    python -m dos_plugin.detection.subset data/nuscenes/nuscenes_infos_train.pkl \
        data/nuscenes/nuscenes_dbinfos_train.pkl --percent 20
Our reading: a hash of the sample's token decides, see dos_plugin/detection/subset.py. The paper's
own 20 % are not known.
"""

_base_ = ["_base_nuscenes.py"]

train_pipeline = _base_.train_pipeline
for step in train_pipeline:
    if step["type"] == "ObjectSample":
        step["db_sampler"]["info_path"] = "data/nuscenes/nuscenes_dbinfos_train_20pct.pkl"
train_dataloader = dict(
    dataset=dict(dataset=dict(ann_file="nuscenes_infos_train_20pct.pkl", pipeline=train_pipeline))
)
del step
