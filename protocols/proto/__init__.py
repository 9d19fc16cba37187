"""Message definitions and the code generated from them."""
