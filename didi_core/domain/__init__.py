"""Optional abilities of a domain, beside the ``Domain`` protocol."""
