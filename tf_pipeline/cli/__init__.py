"""The command line: ``tf-pipeline``."""
