"""The domain of texts: fast tokenizers, documents packed into blocks, judges, metrics of texts."""

from typing import TYPE_CHECKING

from didi_core.catalogue import on_demand

if TYPE_CHECKING:
    from .domain import LanguageDomain
    from .prompted import create
    from .settings import LanguageSettings
    from .tokenizer import TextTokenizer, load_tokenizer, train_tokenizer

__all__ = ["LanguageDomain", "LanguageSettings", "TextTokenizer", "create", "load_tokenizer", "train_tokenizer"]
__getattr__ = on_demand(
    __name__,
    {
        "LanguageDomain": "domain",
        "create": "prompted",
        "LanguageSettings": "settings",
        "TextTokenizer": "tokenizer",
        "load_tokenizer": "tokenizer",
        "train_tokenizer": "tokenizer",
    },
)
