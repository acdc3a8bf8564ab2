"""Read settings: recipes, and the files that declare them."""
