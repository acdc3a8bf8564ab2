"""Run one recipe under several conditions and seeds, and compare them."""
