"""DOS backbones in 3D detectors, in hosts that own the detector.

The files here know no such host: the grid (``grid.py``), features of a stage (``tap.py``), the
view from above (``bev.py``), points to voxels and features (``voxels.py``), a checkpoint's weights
(``load.py``), learning rates by depth (``rates.py``), all of it as one module (``encoder.py``) and
a share of the labels (``subset.py``). ``mmdet3d/`` is MMDetection3D, ``openpcdet/`` OpenPCDet. See
docs/detection.md and docs/openpcdet.md.

``results.py`` reads the boxes that detectors and data sets store, of nuScenes with ``nuscenes.py``,
of KITTI with ``kitti.py``, into the convention of ``boxes.py``. See docs/boxes.md.
"""
