"""``python -m dos_plugin.minihost --config-file FILE [--options key=value ...]``."""

from dos_plugin.minihost.launch import main

if __name__ == "__main__":
    main()
