"""The heads of ``transformers``, once: the lists of their classes, their labels and losses, and their tasks.

The mapping that lists a class tells the kind of its head, which its name may not: ``MarianMTModel`` translates, and
``BertGenerationDecoder`` predicts tokens. The end of the name decides only for a class that no mapping lists, such as
that of a checkpoint's own code.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from tf_pipeline.port.mappings import mapping

# Tasks whose labels a config names.
_OF_LABELS = ("text-classification", "token-classification", "image-classification", "audio-classification")


@dataclass(frozen=True)
class Head:
    """One kind of head.

    Attributes:
        mappings: lists of ``transformers`` with the classes that the auto class of this kind loads; none if there is no
            such auto class.
        ends: ends of the names of such classes.
        elsewhere: further mappings of classes with this head, which take images or sound as well.
        label_names: inputs that are labels.
        loss: name of the function of :mod:`tf_pipeline.losses` that computes the loss.
        loss_inputs: inputs that the loss takes besides the labels.
        input_rank: rank of ``input_ids``.
        task: the pipeline that the head is for.
        generates: whether tokens that it predicts continue a text.
        pairs: whether it scores texts for images, and so reads both.
    """

    mappings: tuple[str, ...]
    ends: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ("labels",)
    loss: str | None = "classification"
    loss_inputs: tuple[str, ...] = ()
    input_rank: int = 2
    task: str | None = None
    generates: bool = False
    pairs: bool = False

    @property
    def names_labels(self) -> bool:
        """Whether the config names the labels that it scores."""
        return self.task in _OF_LABELS

    def attributes(self) -> dict[str, Any]:
        """The attributes by which a model class has this head; see :class:`tf_pipeline.model.TFPreTrainedModel`."""
        from tf_pipeline import losses

        values = {"label_names": self.label_names, "loss_inputs": self.loss_inputs, "input_rank": self.input_rank}
        return values | ({"task_loss": staticmethod(getattr(losses, self.loss))} if self.loss else {})

    def __call__(self, model_class: type) -> type:
        """Give a class this head: ``@MASKED_LM`` above a class sets its :meth:`attributes`."""
        for name, value in self.attributes().items():
            setattr(model_class, name, value)
        return model_class


SEQ_TO_SEQ_LM = Head(
    ("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",),
    ("ForConditionalGeneration",),
    elsewhere=("MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",),
    generates=True,
)
MASKED_LM = Head(("MODEL_FOR_MASKED_LM_MAPPING_NAMES",), ("ForMaskedLM",), task="fill-mask")
CAUSAL_LM = Head(
    ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",),
    ("ForCausalLM", "LMHeadModel"),
    elsewhere=("MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES", "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES"),
    loss="causal_lm",
    task="text-generation",
    generates=True,
)
SEQUENCE_CLASSIFICATION = Head(
    ("MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",),
    ("ForSequenceClassification",),
    loss="sequence_classification",
    task="text-classification",
)
TOKEN_CLASSIFICATION = Head(
    ("MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",), ("ForTokenClassification",), task="token-classification"
)
QUESTION_ANSWERING = Head(
    ("MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",),
    ("ForQuestionAnswering", "ForQuestionAnsweringSimple"),
    label_names=("start_positions", "end_positions"),
    loss="question_answering",
    task="question-answering",
)
TABLE_QUESTION_ANSWERING = Head(
    ("MODEL_FOR_TABLE_QUESTION_ANSWERING_MAPPING_NAMES",), label_names=(), loss=None, task="table-question-answering"
)
MULTIPLE_CHOICE = Head(("MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES",), ("ForMultipleChoice",), input_rank=3)
DOUBLE_HEADS = Head(
    (),
    ("DoubleHeadsModel",),
    label_names=("labels", "mc_labels"),
    loss="double_heads",
    input_rank=3,
    generates=True,
)
NEXT_SENTENCE_PREDICTION = Head(("MODEL_FOR_NEXT_SENTENCE_PREDICTION_MAPPING_NAMES",), ("ForNextSentencePrediction",))
IMAGE_CLASSIFICATION = Head(
    ("MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",),
    ("ForImageClassification",),
    loss="sequence_classification",
    task="image-classification",
)
AUDIO_CLASSIFICATION = Head(
    ("MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",), ("ForAudioClassification",), task="audio-classification"
)
CTC = Head(
    ("MODEL_FOR_CTC_MAPPING_NAMES",), ("ForCTC",), label_names=(), loss=None, task="automatic-speech-recognition"
)
ZERO_SHOT_IMAGE_CLASSIFICATION = Head(
    ("MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES",),
    label_names=(),
    loss=None,
    task="zero-shot-image-classification",
    pairs=True,
)
PRE_TRAINING = Head(("MODEL_FOR_PRETRAINING_MAPPING_NAMES",), ("ForPreTraining",), label_names=(), loss=None)
BODY = Head(
    ("MODEL_MAPPING_NAMES",),
    ("Model",),
    elsewhere=("MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES",),
    label_names=(),
    loss=None,
    task="feature-extraction",
)

# A class that several mappings list has the first of these heads.
HEADS = (
    SEQ_TO_SEQ_LM, MASKED_LM, CAUSAL_LM, SEQUENCE_CLASSIFICATION, TOKEN_CLASSIFICATION, QUESTION_ANSWERING,
    TABLE_QUESTION_ANSWERING, MULTIPLE_CHOICE, DOUBLE_HEADS, NEXT_SENTENCE_PREDICTION, IMAGE_CLASSIFICATION,
    AUDIO_CLASSIFICATION, CTC, ZERO_SHOT_IMAGE_CLASSIFICATION, PRE_TRAINING, BODY,
)  # fmt: skip

# Classes whose loss in PyTorch is not that of their kind.
_UNSHIFTED = (
    "BartForCausalLM", "BigBirdPegasusForCausalLM", "BlenderbotForCausalLM", "BlenderbotSmallForCausalLM",
    "CpmAntForCausalLM", "Florence2ForConditionalGeneration", "MarianForCausalLM", "MBartForCausalLM",
    "MvpForCausalLM", "PegasusForCausalLM", "PLBartForCausalLM", "TrOCRForCausalLM", "WhisperForCausalLM",
    "XLNetLMHeadModel",
)  # fmt: skip
_ATTENDED = (
    "BioGptForTokenClassification", "MraForTokenClassification", "XLMRobertaXLForTokenClassification",
    "YosoForTokenClassification",
)  # fmt: skip
_SENTENCE_PAIRS = (
    "BertForPreTraining", "BigBirdForPreTraining", "ErnieForPreTraining", "FNetForPreTraining",
    "MegatronBertForPreTraining", "MobileBertForPreTraining",
)  # fmt: skip
_NO_LOSS: dict[str, Any] = {"label_names": (), "loss": None}  # PyTorch's has no equal here
_DIFFERENT: dict[str, dict[str, Any]] = {
    **dict.fromkeys(_UNSHIFTED, {"loss": "classification"}),
    **dict.fromkeys(_ATTENDED, {"loss": "attended_classification", "loss_inputs": ("attention_mask",)}),
    **dict.fromkeys(_SENTENCE_PAIRS, {"label_names": ("labels", "next_sentence_label"), "loss": "pre_training"}),
    "AlbertForPreTraining": {"label_names": ("labels", "sentence_order_label"), "loss": "pre_training"},
    **dict.fromkeys(
        ("ElectraForPreTraining", "FunnelForPreTraining"),
        {"label_names": ("labels",), "loss": "replaced_tokens", "loss_inputs": ("attention_mask",)},
    ),
    **dict.fromkeys(
        ("GraniteSpeechForConditionalGeneration", "GraniteSpeechPlusForConditionalGeneration",
         "ProphetNetForCausalLM", "ProphetNetForConditionalGeneration", "Qwen2AudioForConditionalGeneration"),
        _NO_LOSS,
    ),
}  # fmt: skip


@cache
def head_of(class_name: str) -> Head | None:
    """The head of a class of PyTorch's or of ours, such as ``"MarianMTModel"``; ``None`` if nothing tells."""
    name = class_name.removeprefix("TF")
    listed = (head for head in HEADS if any(name in _classes(m) for m in (*head.mappings, *head.elsewhere)))
    named = (head for head in HEADS if name.endswith(head.ends))
    head = next(listed, None) or next(named, None)
    return replace(head, **_DIFFERENT[name]) if name in _DIFFERENT else head


def is_listed(model_class: type, mappings: tuple[str, ...]) -> bool:
    """Whether mappings list a class, or it has a head of theirs; true as well for a class that is in no mapping.

    It is false for heads without mappings, which no auto class loads.
    """
    for name in (base.__name__.removeprefix("TF") for base in model_class.__mro__):
        if (head := head_of(name)) is not None and not head.mappings:
            return False
        own = {one for kind in HEADS for one in (*kind.mappings, *kind.elsewhere) if name in _classes(one)}
        if own:
            return not {*own, *head.mappings}.isdisjoint(mappings)
    return True


@cache
def _classes(mapping_name: str) -> frozenset[str]:
    """Every class of PyTorch's that a mapping lists."""
    return frozenset(name for names in mapping(mapping_name).values() for name in names)
