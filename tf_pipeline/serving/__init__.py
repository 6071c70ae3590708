"""Models for TensorFlow Serving: what an export has to be, and what comes beside it."""
