"""Text, token by token."""
