"""Task pipelines: text in, answers out, in the three stages of Hugging Face's own."""

from tf_pipeline.pipelines.factory import pipeline
from tf_pipeline.pipelines.tasks import supported_tasks

__all__ = ["pipeline", "supported_tasks"]
