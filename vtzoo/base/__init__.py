"""Files, the machine, progress bars, strict tables and subprocesses, for every other package."""
