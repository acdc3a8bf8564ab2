"""The stages of a run, one module each; they meet only through files in the run folder.

respond          1  sample the teacher's answers with CoT off, and the answers that the model should keep
signal           2  train the classifier of the teacher's decisions, and compute p' of every query
align            3  train every aligned system, one training per seed
operating_point     scale each adapter to the recipe's rate of wrong refusals, at the end of stage 3
evaluate         4  sample and score every system on held-out prompts
report           5  write one page and `results.json`

run_folder       where a run lies on disk, and which stages are done
workload         the prompts of a recipe
systems          the systems of a recipe, and their folders
"""
