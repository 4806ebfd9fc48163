"""Reading and writing networks: our cards, Hugging Face folders, and the layouts of other code."""
