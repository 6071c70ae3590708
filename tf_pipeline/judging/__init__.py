"""When two tensors count as equal, and what is said about them: the rules of ports and of comparisons alike."""
