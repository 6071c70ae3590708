"""Errors of porting a model."""


class PortError(ValueError):
    """A model that cannot be ported; the message says why, and names the supported ones."""


class MissingRuleError(PortError):
    """An operator that has no rule; the message lists them all, and where they come from."""


class UncachedError(PortError):
    """A language model without a cache of keys and values; the message names the cache that it has."""
