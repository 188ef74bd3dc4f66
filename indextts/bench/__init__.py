"""The benchmark: how fast an engine speaks, configuration beside configuration (``measure``), and how that is shown."""
