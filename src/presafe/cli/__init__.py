"""The command line: one verb per file. Importing it loads no torch."""
