"""What maps of small real scenes say, kept: a change of code or of a library that moves a map is seen, and renewed on purpose."""
