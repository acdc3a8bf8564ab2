"""Stage 2: a classifier that learns the teacher's decisions and gives a soft decision for every query.

classifier     the BERT-type classifier: split of its data, training, predictions
calibration    accuracy, expected calibration error, reliability bins
"""
