"""What goes wrong when a model is ported."""


class PortError(ValueError):
    """A model that cannot be ported; the message says why and what is supported."""
