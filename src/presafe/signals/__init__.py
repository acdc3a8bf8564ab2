"""Stage 2: the teacher's decisions, a classifier that learns them, and its soft decisions for every query.

classifier     the BERT-type classifier: trained, resumed, asked
calibration    accuracy, expected calibration error, reliability bins
"""
