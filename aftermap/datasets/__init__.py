"""Published data sets in their official layouts, one file each; dataset.py says what they all give."""
