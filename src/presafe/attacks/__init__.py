"""Attacks on a model's safety decision, and defenses around any model: to measure both.

An attack rewords a harmful request and begins the model's turn. It holds nothing harmful of its own, and asks no model:
what it returns is a `Prompt` that is sampled like any other. A search and a defense ask several times; they are given a
function that asks, so that no model is known here.
"""
