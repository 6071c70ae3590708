"""Judge whether two tensors are equal, and describe the difference: the rules of ports and of comparisons alike."""
