"""Text on the terminal while a model writes it, and a small chat."""

from typing import Any

from rich.console import Console

_HELP = "A chat with {model}. An empty line or Ctrl-D ends it, /new begins another."


def write(pipe: Any, prompt: Any, is_whole: bool = False) -> str:
    """Print a continuation word by word.

    Args:
        pipe: a pipeline of text-generation.
        prompt: a text or a chat.
        is_whole: whether to print the text too.

    Returns:
        The continuation.
    """
    from transformers import TextStreamer

    config = pipe.settings().config
    if config.num_beams > 1 or config.num_return_sequences > 1:  # there is no one text to print before the end
        texts = [record["generated_text"] for record in pipe(prompt, return_full_text=False)]
        print("\n\n".join(prompt + text if is_whole else text for text in texts))
        return texts[0]
    if is_whole:
        print(prompt, end="", flush=True)
    streamer = TextStreamer(pipe.tokenizer, skip_prompt=True, skip_special_tokens=True)
    return pipe(prompt, streamer=streamer, return_full_text=False)[0]["generated_text"]


def write_served(client: Any, prompt: str) -> None:
    """Print a text, and what a server writes behind it, piece by piece."""
    print(prompt, end="", flush=True)
    for piece in client.stream_text(prompt):
        print(piece, end="", flush=True)
    print()


def chat(pipe: Any) -> None:
    """Read lines from the terminal and answer each, until an empty one.

    A tokenizer without a chat template gets the lines so far as one text.
    """
    console = Console(stderr=True)
    console.print(_HELP.format(model=pipe.model.config._name_or_path), highlight=False)
    has_template = getattr(pipe.tokenizer, "chat_template", None) is not None
    messages: list[dict[str, str]] = []
    while line := _line():
        if line == "/new":
            messages = []
            continue
        messages.append({"role": "user", "content": line})
        prompt = messages if has_template else "\n".join(message["content"] for message in messages) + "\n"
        messages.append({"role": "assistant", "content": _answer(pipe, prompt, console)})


def _answer(pipe: Any, prompt: Any, console: Console) -> str:
    try:
        return write(pipe, [*prompt] if isinstance(prompt, list) else prompt)
    except ValueError as error:
        console.print(f"{error} Begin again with /new.", soft_wrap=True, highlight=False)
        return ""


def _line() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""
