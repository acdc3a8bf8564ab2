"""From the numbers of a run to what a person can judge: one HTML page, its figures, tables and results.json.

data        what a report is made from: frozen records, filled from the files of a run
formatting  names and number formats for people
lookup      the Score for a system, a CoT mode, a suite and a metric
headline    sentences and cards that are filled from the numbers
drawing     what the figures share
figures     SVG text, one pure function per figure
pareto      refusals against their price: the figure, and the front
internals   hidden states layer by layer, and where responses refuse: figures and tables
sweep       a sweep over ways of sampling: its figure, table and sentences
page        the self-contained HTML page, and the report folder
results     results.json, and the tables for the terminal
study       a study's summary: study.json, study.md and its figures
"""
