"""The command line: one thin verb a file. Importing it loads no torch."""
