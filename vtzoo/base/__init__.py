"""What every other package may use: files, memory limits, progress, strict tables, processes."""
