"""Networks in and out: our cards, Hugging Face folders, and the layouts of peers."""
