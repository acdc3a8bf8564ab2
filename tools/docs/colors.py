"""Colors of the figures."""

GREY, RED, BLUE, GOLD, TEAL, PLUM = "#8d949e", "#d1603d", "#3f6c9c", "#dca744", "#15827c", "#8a5a83"
