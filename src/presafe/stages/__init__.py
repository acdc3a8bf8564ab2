"""The stages of a run, one module each; they meet only through files in the run folder.

systems    which queries, systems and folders a recipe means
respond    1  teacher's answers with CoT off, the model's own, which it is to keep
signal     2  the classifier of the teacher's decisions, and p' of every query
align      3  every aligned system, each seed
evaluate   4  every system on held-out prompts
report     5  one page and `results.json`
run        all of them in order, skipping what is done

measure, sweep, compare, monitor, look are no stages of a run: one model, the same over many ways of sampling, several
folders, the head as a monitor, inside the systems of a run.
"""
