"""OpenPCDet: ``python -m dos_plugin.detection.openpcdet train.py ...`` in its ``tools``.

``DOSBackbone3D`` and ``DOSVFE`` are put into the tables that the host builds its detectors from;
no file of it is edited. Only ``register.py`` and ``convert.py`` import the host.
"""
