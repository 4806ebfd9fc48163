"""Text for didi_core: fast tokenizers, documents packed into blocks, judges, metrics of texts."""

from .domain import LanguageDomain, create
from .settings import LanguageSettings
from .tokenizer import TextTokenizer, load_tokenizer, train_tokenizer

__all__ = ["LanguageDomain", "LanguageSettings", "TextTokenizer", "create", "load_tokenizer", "train_tokenizer"]
