"""The files of a delivered map, one kind per module; what each holds is in docs of the products and in the README."""
