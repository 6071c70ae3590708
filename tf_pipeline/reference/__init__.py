"""PyTorch's side of every comparison: its models loaded and run, and their results as arrays by name.

A port is made from it (:mod:`tf_pipeline.port`) and a comparison measures against it (:mod:`tf_pipeline.parity`).
"""
