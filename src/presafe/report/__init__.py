"""From the numbers of a run to what a person can judge: one HTML page, its figures, tables and results.json.

data      what a report is made from: frozen records, filled from the files of a run
labels    the names and number formats that people read
rows      which Score stands for a system, a CoT mode, a suite and a metric
headline  the sentences and cards that the numbers themselves write
drawing   what the figures share
figures   SVG text, one pure function a figure
inside    what hidden states know, layer by layer, and where responses refuse: figures and tables
sensitivity   a sweep over ways of sampling: its figure, table and sentences
page      the self-contained HTML page, and the report folder
results   results.json, and the small table of the terminal
"""
