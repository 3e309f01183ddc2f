"""Own scans, with or without labels, into the host's on-disk layout.

``sources`` finds the files, ``readers`` reads their fields, ``labels`` their labels, ``scan``
checks and picks what is kept, ``job`` does all of it for one file, ``write`` for many in
``parallel``.
"""
