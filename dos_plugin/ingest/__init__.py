"""Own scans, with or without labels, into the host's on-disk layout.

``sources`` finds the files, ``readers`` has the table of formats and gives the columns of their
scans one after the other (``flat``, ``pcd``, ``las`` and ``recordings`` read the larger formats),
``labels`` reads labels, ``tiles`` cuts maps, ``scan`` checks and picks what is kept, ``strengths``
finds the divisor, ``job`` does all of it for one file, ``write`` for many in ``parallel``.
"""
