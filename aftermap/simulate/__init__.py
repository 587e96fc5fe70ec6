"""Scenes with known truth: what a method may be measured on where no labels exist."""
