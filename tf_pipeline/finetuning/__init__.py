"""Fine-tune a checkpoint on rows, from files to a folder: ``tf-pipeline train`` in Python."""

from tf_pipeline.finetuning.train import TASKS, train

__all__ = ["TASKS", "train"]
