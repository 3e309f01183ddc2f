"""CenterPoint inside the host of the pretraining, for those who have no other detector.

Boxes are rows (K, 9) everywhere: x, y, z of the geometric centre, length along the heading, width
and height in metres, yaw in radians counter-clockwise from +x, and the velocity along x and y in
metres a second, NaN where it is not known; all in the frame of the LiDAR. The class of a box is an
index into the detector's classes, -1 where it is none of them.

``boxes.py`` moves boxes, ``transforms.py`` moves points with them, ``dataset.py`` reads both;
``targets.py``, ``losses.py``, ``head.py`` and ``nms.py`` make the detector of ``model.py``;
``load.py`` and ``evaluator.py`` are hooks, ``tester.py`` is the test stage; ``scoring.py``,
``metric.py`` and ``submission.py`` are what comes out.
"""
