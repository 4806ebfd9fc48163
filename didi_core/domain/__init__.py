"""What a domain may offer beside the ``Domain`` protocol."""
