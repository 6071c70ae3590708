"""Architecture families, one module each; the module is named after the config's ``model_type``."""
