"""Keep a run on disk: its folder, its manifest, whole-or-nothing files."""
