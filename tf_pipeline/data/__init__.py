"""From rows to batches of TensorFlow: :func:`prepare` for texts, collators for tokenized rows."""

from tf_pipeline.data.collators import (
    DataCollatorForLanguageModeling,
    DataCollatorForMultipleChoice,
    DataCollatorForPermutationLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorForWholeWordMask,
    DataCollatorWithPadding,
    DefaultDataCollator,
    tf_default_data_collator,
)
from tf_pipeline.data.prepare import prepare
from tf_pipeline.data.tokenized import prepare_tf_dataset

__all__ = [
    "DataCollatorForLanguageModeling",
    "DataCollatorForMultipleChoice",
    "DataCollatorForPermutationLanguageModeling",
    "DataCollatorForSeq2Seq",
    "DataCollatorForTokenClassification",
    "DataCollatorForWholeWordMask",
    "DataCollatorWithPadding",
    "DefaultDataCollator",
    "prepare",
    "prepare_tf_dataset",
    "tf_default_data_collator",
]
