"""A tokenizer of bytes for the small random checkpoints that stand for those that the guides name."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = ["Once upon a time there was a house.", "The answer is forty-two.", "How are you? It rains."]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """GPT-2's kind of tokenizer, with an end behind every text."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["</s>", "<pad>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    core.train_from_iterator(TEXTS, trainer)
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="</s>", bos_token="</s>", pad_token="<pad>", model_max_length=1024
    )
