"""What a network is trained for, one objective per file: (model, batch) -> {"loss": ...}, and sums that give its scores.

An objective also measures: `sums(model, batch)` is a vector that adds over batches and machines, `scores(sums)` what it means, so
that every score is of all samples pooled, never a mean of batches. Objectives never import one another.
"""
